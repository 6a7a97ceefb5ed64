"""Rules of the model types whose layers differ: what each layer is, from the keys of a config.json.

Each rule takes a reader and the number of a layer, from 0, and returns those fields of the layer's
:class:`~simulator.inputs.model.LayerGroup` that the model type decides.

Source: configuration and modelling classes of transformers 5.24.0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from simulator.inputs.hf_config.reading import FULL, WINDOWED, ByLayer, ConfigReader, listed
from simulator.inputs.hf_config.rules import product

# Heads of keys and of values of a state, and their widths.
HEADS = ("k_heads", "k_dim", "v_heads", "v_dim")


def kinds_of(reader: ConfigReader, rule: Callable[[int], str], *names: str) -> list[str]:
    """Return the kind of each layer: as the file lists under one of some names, else by a rule."""
    found = listed(reader, *names)
    if found is not None:
        return found
    return [rule(layer) for layer in range(reader.layers)]


def kind_of(reader: ConfigReader, layer: int) -> str:
    """Return the common name of a layer's kind, from the list that the keys of its type state."""
    return str((reader.items("layer_types") or ())[layer])


def olmo_hybrid(reader: ConfigReader) -> dict[str, Any]:
    """Olmo-Hybrid: gated delta nets without norms after them."""
    heads = reader.heads
    head_dim = reader.hidden * 3 // (4 * heads)
    return gated_delta(reader, k_heads=heads, v_heads=heads, k_dim=head_dim, v_dim=2 * head_dim)


def gated_delta(
    reader: ConfigReader,
    *,
    k_heads: int = 16,
    v_heads: int = 32,
    k_dim: int = 128,
    v_dim: int = 128,
) -> dict[str, Any]:
    """Qwen3-Next: gated delta nets of queries, keys, values, an output gate, decay and strength.

    Parameters
    ----------
    reader
        The file.
    k_heads, v_heads, k_dim, v_dim
        Class defaults: heads of queries and keys, of values and states, and their widths.
    """
    k_heads = reader.size("linear_num_key_heads", k_heads)
    k_dim = reader.size("linear_key_head_dim", k_dim)
    v_heads = reader.size("linear_num_value_heads", v_heads)
    v_dim = reader.size("linear_value_head_dim", v_dim)
    keys, values = k_heads * k_dim, v_heads * v_dim
    return {
        "rule": "delta",
        **dict(zip(HEADS, (k_heads, k_dim, v_heads, v_dim), strict=True)),
        "columns": 2 * keys + 2 * values + 2 * v_heads,
        "channels": 2 * keys + values,
        "taps": reader.size("linear_conv_kernel_dim", 4),
        "vectors": 2 * v_heads + v_dim,  # decays and their biases, and the norm of a head's output
    }


def kimi_layers(reader: ConfigReader, layer: int) -> bool:
    """Kimi Linear: the layers of a list numbered from 1, or all but every fourth, have a state."""
    listed = _kimi_config(reader).get("kda_layers")
    return layer + 1 in listed if isinstance(listed, list) else layer % 4 != 0 or layer == 0


def _kimi_config(reader: ConfigReader) -> Mapping[str, Any]:
    """Return the keys of Kimi Linear's states."""
    stated = reader.data.get("linear_attn_config")
    return stated if isinstance(stated, Mapping) else {}


def kimi_delta(reader: ConfigReader) -> dict[str, Any]:
    """Kimi Linear: delta attention with a decay for each channel."""
    linear = _kimi_config(reader)
    own = reader.with_keys(linear)
    heads = own.size("num_heads", reader.size("linear_num_heads", 32))
    width = linear.get("head_dim", reader.size("linear_head_dim", 128))
    taps = own.size("short_conv_kernel_size", reader.size("linear_conv_kernel_dim", 4))
    values = heads * width
    # Decays and the output gate come from a narrow product each, then one to all channels.
    narrow = [product(f"{name}_up_projection", width, values) for name in ("decay", "gate")]
    return {
        "rule": "channel_delta",
        **dict(zip(HEADS, (heads, width, heads, width), strict=True)),
        "columns": 3 * values + heads + 2 * width,
        "channels": 3 * values,
        "taps": taps,
        "products": narrow,
        "vectors": values + heads + width,
    }


def kimi_special(reader: ConfigReader) -> dict[str, Any]:
    """Kimi Linear: its output matrix is its own, whatever the file says.

    Kimi K3 calls itself Kimi Linear as well: refused, as its further parts are not known.
    """
    for key in ("routed_expert_hidden_size", "attn_res_block_size"):
        if key in reader.data:
            reader.fail(f"{key} is of an architecture that is not known yet (Kimi K3)")
    return {"tied_embeddings": False}


def indexed(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """GLM-5: some layers take the selection of the last layer with an indexer."""
    types = reader.items("indexer_types", length=reader.layers)
    pattern = reader.data.get("index_topk_pattern")
    if types is not None:
        return {"indexes": types[layer] == "full"}
    if pattern:
        return {"indexes": pattern[layer] in ("F", "full")}
    every = max(reader.optional("index_topk_freq", 1) or 1, 1)
    offset = reader.optional("index_skip_topk_offset", 2) or 0
    return {"indexes": max(layer - offset + 1, 0) % every == 0}


# Sizes that differ by layer. A rule of keys gives the names of a type's own files in common terms.


def _types(
    reader: ConfigReader, is_full: Callable[[int], bool], other: str = WINDOWED
) -> list[str]:
    """Return what each layer attends to: as the file lists, else by a rule of the class."""
    found = kinds_of(reader, lambda layer: FULL if is_full(layer) else other, "layer_types")
    # Some files add the layers of multi-token prediction.
    return found[: reader.layers]


def _mlp_types(reader: ConfigReader, is_sparse: Callable[[int], bool]) -> list[str]:
    """Return the kind of each layer's MLP: as the file lists, else by a rule of the class."""
    layers = reader.layers
    found = reader.items("mlp_layer_types")
    if found is None:
        sparse = reader.data.get("moe_layer_freq")
        sparse = sparse if isinstance(sparse, list) else map(is_sparse, range(layers))
        found = ["sparse" if experts else "dense" for experts in sparse]
    return list(found[:layers])


def _shares(reader: ConfigReader, layer: int, default: int) -> bool:
    """Return whether a layer is among the last, which read the caches of earlier layers."""
    shared = reader.optional("num_kv_shared_layers", default) or 0
    return layer >= reader.layers - shared


def _own_sizes(reader: ConfigReader, layer: int) -> Mapping[str, Any] | None:
    """Return a layer's sizes of ``per_layer_config``, or None for a file without it."""
    stated = reader.data.get("per_layer_config")
    if not isinstance(stated, Mapping):
        return None
    own = {str(key).lstrip("0") or "0": value for key, value in stated.items()}.get(str(layer))
    return own if isinstance(own, Mapping) else {}


def layer_inputs(reader: ConfigReader, width: int) -> dict[str, Any]:
    """Gemma 3n and Gemma 4: embeddings that each layer adds; ``width`` is the class default."""
    width = reader.optional("hidden_size_per_layer_input", width) or 0
    rows = reader.size("vocab_size_per_layer_input", 262_144)
    return {"layer_inputs": {"rows": rows, "width": width}} if width else {}


def gemma3n_keys(reader: ConfigReader) -> dict[str, Any]:
    """Gemma 3n: every fifth layer attends to all tokens, and each MLP may have its own width."""
    keys: dict[str, Any] = {"layer_types": _types(reader, lambda layer: (layer + 1) % 5 == 0)}
    sizes = reader.data.get("intermediate_size")
    if isinstance(sizes, list | tuple) and sizes:
        reader.items("intermediate_size", length=reader.layers)
        keys |= {"intermediate_size": max(sizes), "intermediate_sizes": sizes}
    return keys


def gemma3n(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Gemma 3n: shared caches, and the products that mix several residual streams (AltUp)."""
    d, rank = reader.hidden, reader.size("laurel_rank", 64)
    streams = reader.size("altup_num_inputs", 4)
    return {
        "kv": "earlier" if _shares(reader, layer, 15) else "own",
        "intermediate_size": reader.choice(ByLayer("intermediate_sizes"), layer),
        "products": [
            product("stream_router", d, streams),
            product("residual_down", d, rank),
            product("residual_up", rank, d),
        ],
        "vectors": d + streams**2 + streams**3,
    }


def gemma3n_special(reader: ConfigReader) -> dict[str, Any]:
    """Gemma 3n: per-layer inputs, and the products into and out of the residual streams."""
    d, others = reader.hidden, reader.size("altup_num_inputs", 4) - 1
    streams = [(number, way) for way in ("in", "out") for number in range(1, others + 1)]
    return {
        **layer_inputs(reader, 256),
        "products": [product(f"stream_{number}_{way}", d, d) for number, way in streams],
        "notes": ["the sums over AltUp's residual streams are not timed"],
    }


def gemma4_keys(reader: ConfigReader) -> dict[str, Any]:
    """Gemma 4: every sixth layer and the last attend to all tokens; experts have a switch."""
    types = _types(reader, lambda layer: (layer + 1) % 6 == 0)
    has_experts = reader.flag("enable_moe_block")
    return {
        "layer_types": [*types[:-1], FULL],
        "num_experts": reader.data.get("num_experts") if has_experts else None,
        "num_experts_per_tok": reader.data.get("top_k_experts"),
    }


def gemma4(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Gemma 4: layers with all tokens have wider heads; the last layers share earlier caches."""
    full, shares = kind_of(reader, layer) == FULL, _shares(reader, layer, 0)
    tied = full and reader.flag("attention_k_eq_v")
    own = _own_sizes(reader, layer)
    if own is None and full:
        own = {"head_dim": reader.size("global_head_dim", 512)}
        if tied:
            own["num_key_value_heads"] = reader.optional("num_global_key_value_heads", None)
    own = own or {}
    wide = shares and reader.flag("use_double_wide_mlp")
    experts = reader.data.get("num_experts")
    if wide and experts:
        reader.fail("use_double_wide_mlp with enable_moe_block is not modelled")
    return {
        "kv": "earlier" if shares else "tied" if tied else "own",
        "kv_heads": own.get("num_key_value_heads"),
        "head_dim": own.get("head_dim"),
        "intermediate_size": 2 * reader.size("intermediate_size") if wide else None,
        # The router scales the hidden state and each expert's weight.
        "vectors": reader.hidden + reader.size("num_experts") if experts else 0,
    }


def gemma4_special(reader: ConfigReader, *, width: int = 256) -> dict[str, Any]:
    """Gemma 4: per-layer inputs, and three more norms around experts beside a dense MLP."""
    norms = {"norms_per_layer": 7} if reader.data.get("num_experts") else {}
    return {**layer_inputs(reader, width), **norms}


def mimo_keys(reader: ConfigReader) -> dict[str, Any]:
    """MiMo-V2: the first and every sixth layer attend to all tokens; the first MLP is dense."""
    pattern = reader.items("hybrid_layer_pattern")
    keys: dict[str, Any] = {
        "layer_types": _types(
            reader,
            lambda layer: not pattern[layer] if pattern else layer == 0 or (layer + 1) % 6 == 0,
        ),
        "mlp_layer_types": _mlp_types(reader, lambda layer: layer > 0),
    }
    # Queries see that many earlier tokens and themselves.
    earlier = reader.optional("sliding_window_size", None)
    return keys if earlier is None else {**keys, "sliding_window": earlier + 1}


def mimo(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """MiMo-V2: windowed layers have twice the KV heads, and attention sinks."""
    heads = reader.heads
    if kind_of(reader, layer) == FULL:
        return {"vectors": heads if reader.flag("add_full_attention_sink_bias") else 0}
    sinks = reader.flag("add_swa_attention_sink_bias", default=True)
    own = reader.size("swa_num_attention_heads", heads)
    kv_heads = 2 * reader.size("num_key_value_heads", 4)
    return {
        "heads": own,
        "kv_heads": reader.size("swa_num_key_value_heads", kv_heads),
        "head_dim": reader.size("swa_head_dim", reader.size("head_dim", 192)),
        "value_dim": reader.size("swa_v_head_dim", reader.size("v_head_dim", 128)),
        "vectors": own if sinks else 0,
    }


def step_keys(reader: ConfigReader, *, first: int, **defaults: int) -> dict[str, Any]:
    """Step-3: names of its own for KV heads and experts.

    Parameters
    ----------
    reader
        The file.
    first
        The first layer with experts, by default all after it have them.
    defaults
        Class defaults of KV heads and experts.
    """
    listed = reader.data.get("moe_layers_enum")
    listed = listed.split(",") if isinstance(listed, str) else listed
    sparse = None if listed is None else {int(layer) for layer in listed if str(layer).strip()}
    names = {
        "num_key_value_heads": ("num_attention_groups",),
        "num_experts": ("moe_num_experts", "n_routed_experts"),
        "num_experts_per_tok": ("moe_top_k",),
    }
    keys: dict[str, Any] = {
        "layer_types": _types(reader, lambda _layer: True),
        "mlp_layer_types": _mlp_types(
            reader, lambda layer: layer >= first if sparse is None else layer in sparse
        ),
    }
    for name, others in names.items():
        stated = [reader.data[other] for other in (*others, name) if reader.data.get(other)]
        keys[name] = stated[0] if stated else defaults[name]
    return keys


def step3p5(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Step-3.5: windowed layers have more query heads."""
    own = _own_sizes(reader, layer)
    if own is None and kind_of(reader, layer) != FULL:
        other = reader.data.get("attention_other_setting")
        own = other if isinstance(other, Mapping) else {}
        if heads := reader.optional("num_sliding_attention_heads", None):
            own = {"num_attention_heads": heads}
    return {"heads": (own or {}).get("num_attention_heads")}


def step_shared(reader: ConfigReader, *, default: int) -> int:
    """Step-3: one shared expert with a width of its own."""
    width = reader.optional("share_expert_dims", default) or 0
    return reader.optional("share_expert_dim", width) or 0


def longcat_keys(reader: ConfigReader) -> dict[str, Any]:
    """LongCat: each of its layers is counted as two, see :func:`longcat_special`."""
    halves = reader.optional("num_hidden_layers", None) if "num_layers" not in reader.data else None
    return {
        "num_hidden_layers": halves // 2 if halves else reader.size("num_layers", 28),
        "num_experts_per_tok": reader.data.get("moe_topk"),
        "n_shared_experts": None,
    }


def longcat_special(reader: ConfigReader) -> dict[str, Any]:
    """LongCat: a layer is two of latent attention and a dense MLP, with experts beside the first.

    Some experts return their input (zero experts).
    """
    layers = reader.layers
    experts = {
        "count": reader.size("n_routed_experts", 512),
        "zero": reader.optional("zero_expert_num", 256) or 0,
        "per_token": reader.size("num_experts_per_tok", 12),
        "intermediate_size": reader.size("expert_ffn_hidden_size", 2048),
        "shared_intermediate_size": reader.size("intermediate_size"),
        "router_bias": reader.flag("router_bias"),
    }
    return {
        "layers": 2 * layers,
        "layer_groups": [{"count": layers, "mlp": mlp} for mlp in ("experts", "dense")],
        "experts": experts,
        "notes": [f"each of the {layers} layers is two, with a dense MLP each; experts in one"],
    }


def cross_attention(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Llama 3.2 Vision: some layers attend to images, with norms and gates; text skips them."""
    if layer not in _cross_layers(reader):
        return {}
    head_dim = reader.hidden // reader.heads
    return {"runs": False, "vectors": 2 * head_dim + 2}


def _cross_layers(reader: ConfigReader) -> Sequence[int]:
    """Return the numbers of the layers with cross attention."""
    listed = reader.items("cross_attention_layers")
    return range(3, 40, 5) if listed is None else listed


def mllama_special(reader: ConfigReader) -> dict[str, Any]:
    """Llama 3.2 Vision: eight further rows in the token table, and layers that text skips."""
    layers = len(_cross_layers(reader))
    note = (
        f"{layers} cross-attention layers are in memory; steps on text alone skip them, and the "
        "keys and values of image tokens, once per prompt, are left out"
    )
    rows = reader.size("vocab_size") + 8
    # The table has more rows than the output matrix, so that they are never one.
    return {"embedding_rows": rows, "tied_embeddings": False, "notes": [note]}


def nas_keys(reader: ConfigReader) -> dict[str, Any]:
    """Nemotron-NAS: widths are given block by block; those of the whole are the largest."""
    blocks = [nas_block(reader, layer) or {} for layer in range(reader.layers)]
    return {
        "num_key_value_heads": max(block.get("kv_heads", 1) for block in blocks),
        "intermediate_size": max(block.get("intermediate_size", 0) for block in blocks),
    }


def nas_block(reader: ConfigReader, layer: int) -> dict[str, Any] | None:
    """Nemotron-NAS: each block says which attention and MLP it has, if any, and how wide."""
    blocks = reader.items("block_configs", length=reader.layers)
    if blocks is None:
        reader.fail("block_configs is missing")
    d, heads = reader.hidden, reader.heads
    attention, mlp = ({**(blocks[layer].get(part) or {})} for part in ("attention", "ffn"))
    fields: dict[str, Any] = {"products": [], "vectors": 0}
    if group := attention.get("n_heads_in_group"):
        fields["kv_heads"] = heads // group
    else:
        fields["attends"] = False
    if mult := mlp.get("ffn_mult"):
        # Two thirds, rounded up to a multiple of 256.
        fields["intermediate_size"] = -(-int(2 * mult * d / 3) // 256) * 256
    elif inner := mlp.get("intermediate_size"):
        fields["intermediate_size"] = inner
    else:
        fields["mlp"] = "none"
    for name, part in (("attention_linear", attention), ("mlp_linear", mlp)):
        if part.get("replace_with_linear"):
            fields["products"].append(product(name, d, d))
            fields["vectors"] += d  # the norm before it
    idle = fields.get("attends") is False and fields.get("mlp") and not fields["products"]
    return None if idle else fields


def openelm_keys(reader: ConfigReader) -> dict[str, Any]:
    """OpenELM: names of its own; heads and widths are given layer by layer."""
    data = reader.data
    heads, kv_heads = reader.items("num_query_heads") or [0], reader.items("num_kv_heads") or [0]
    divisor, d = reader.size("ffn_dim_divisor", 256), reader.size("model_dim")
    widths = []
    for mult in reader.items("ffn_multipliers") or ():
        # The nearest multiple, unless that is under 90 %.
        width = max(divisor, int(mult * d + divisor / 2) // divisor * divisor)
        widths.append(width + divisor if width < 0.9 * mult * d else width)
    return {
        "num_hidden_layers": data.get("num_transformer_layers"),
        "hidden_size": d,
        "num_attention_heads": max(heads),
        "num_key_value_heads": max(kv_heads),
        "intermediate_size": max(widths, default=0),
        "intermediate_sizes": widths,
        "max_position_embeddings": data.get("max_context_length"),
        "tie_word_embeddings": data.get("share_input_output_layers", True),
    }


def minimax_m3_keys(reader: ConfigReader) -> dict[str, Any]:
    """MiniMax-M3: which layers select blocks of keys, and which have experts."""
    config = reader.data.get("sparse_attention_config")
    frequency = config.get("sparse_attention_freq") if isinstance(config, Mapping) else None
    types = _types(
        reader, lambda layer: not (frequency and frequency[layer]), other="minimax_m3_sparse"
    )
    return {"layer_types": types, "mlp_layer_types": _mlp_types(reader, lambda _layer: True)}
