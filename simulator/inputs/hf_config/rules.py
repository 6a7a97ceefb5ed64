"""Rules of model types that their table of defaults cannot hold: one function for each.

Most take the reader of a config and the number of a layer. Source: the modelling classes of
transformers 5.24.0, and for types that it lacks the code published with their checkpoints.
"""

from collections.abc import Callable, Mapping
from typing import Any

from simulator.inputs.hf_config.reading import ConfigReader, LayerRule, Mixture, stated_kv_heads

BAICHUAN_13B_WIDTH = 5120


def multi_head(reader: ConfigReader) -> int:
    """Give every head its own KV head, the only form of the model type."""
    return reader.heads


def bigcode_kv_heads(reader: ConfigReader) -> int:
    """GPT-BigCode: one KV head unless ``multi_query`` is false."""
    return 1 if reader.flag("multi_query", default=True) else reader.heads


def falcon_kv_heads(reader: ConfigReader) -> int:
    """Falcon: ``num_kv_heads`` applies only to the new architecture; Falcon-7B's file has 71."""
    if reader.flag("new_decoder_architecture"):
        return stated_kv_heads(reader)
    return bigcode_kv_heads(reader)


def chatglm_kv_heads(reader: ConfigReader) -> int:
    """ChatGLM: ``multi_query_group_num``, if there are groups at all."""
    grouped = reader.flag("multi_query_attention")
    return reader.size("multi_query_group_num", 1) if grouped else reader.heads


def mpt_kv_heads(reader: ConfigReader) -> int:
    """MPT: ``attn_config`` names the kind of attention."""
    attention = reader.data.get("attn_config")
    stated = attention if isinstance(attention, Mapping) else {}
    kind = stated.get("attn_type")
    if kind == "grouped_query_attention":
        return ConfigReader(stated, where=reader.where).size("kv_n_heads")
    return 1 if kind == "multiquery_attention" else reader.heads


def after_every(step: int) -> LayerRule:
    """Select all layers but the first of every ``step``."""
    return lambda _reader, layer: layer % step != 0


def all_but_every(step: int, key: str | None = None) -> LayerRule:
    """Select all layers but every ``step``-th; ``key`` names a step that the file may state."""
    return lambda reader, layer: (layer + 1) % (reader.size(key, step) if key else step) != 0


def from_max_window_layers(default: int) -> LayerRule:
    """Qwen2 and Qwen3: the layers past ``max_window_layers``."""
    return lambda reader, layer: layer >= (reader.optional("max_window_layers", default) or 0)


def even_below_max_window_layers(reader: ConfigReader, layer: int) -> bool:
    """Qwen2-MoE: every second layer below ``max_window_layers``."""
    return layer % 2 == 0 and layer < (reader.optional("max_window_layers", 28) or 0)


def rotary_layers(reader: ConfigReader, layer: int) -> bool:
    """Llama 4: the layers with rotary encoding attend in chunks, the others to all tokens."""
    # Llama-4-Scout's file has an empty list, which means the interval.
    if reader.items("no_rope_layers"):
        flags = reader.items("no_rope_layers", length=reader.layers) or ()
        return bool(flags[layer])
    return (layer + 1) % reader.size("no_rope_layer_interval", 4) != 0


def unrotated_layers(reader: ConfigReader, layer: int) -> bool:
    """SmolLM3: the layers without rotary encoding."""
    return not rotary_layers(reader, layer)


def gpt_neo_windows(reader: ConfigReader, layer: int) -> bool:
    """GPT-Neo: patterns of global and local layers, each with the times it is repeated."""
    types = reader.items("attention_types") or [[["global", "local"], 1]]
    try:
        kinds = [kind for pattern, times in types for kind in pattern * times]
    except (TypeError, ValueError):
        reader.fail("attention_types must be a list of [pattern, times]")
    return bool(kinds) and kinds[layer % len(kinds)] == "local"


def every_sparse_step(reader: ConfigReader, layer: int) -> bool:
    """Qwen-MoE: every ``decoder_sparse_step``-th layer except ``mlp_only_layers``."""
    dense = reader.items("mlp_only_layers") or ()
    return layer not in dense and (layer + 1) % reader.size("decoder_sparse_step", 1) == 0


def after_first_dense(default: int, key: str = "first_k_dense_replace") -> LayerRule:
    """All layers but the first few, unless the file states which MLPs are sparse."""

    def rule(reader: ConfigReader, layer: int) -> bool:
        types = reader.items("mlp_layer_types", length=reader.layers)
        if types is not None:
            return bool(types[layer] == "sparse")
        step = reader.size("moe_layer_freq", 1)
        return layer >= (reader.optional(key, default) or 0) and layer % step == 0

    return rule


def ernie_sparse_layers(reader: ConfigReader, layer: int) -> bool:
    """ERNIE 4.5: every ``moe_layer_interval``-th layer from a first to a last one."""
    first = reader.optional("moe_layer_start_index", 1) or 0
    last = reader.data.get("moe_layer_end_index", -1)
    end = last if isinstance(last, int) and last >= 0 else reader.layers - 1
    return (layer + 1) % reader.size("moe_layer_interval", 1) == 0 and first <= layer <= end


def interleaved_experts(reader: ConfigReader, layer: int) -> bool:
    """Llama 4: the layers of ``moe_layers``, or every ``interleave_moe_layer_step``-th."""
    listed = reader.items("moe_layers")
    if listed is not None:
        return layer in listed
    return (layer + 1) % reader.size("interleave_moe_layer_step", 1) == 0


def shared_expert_of(
    default: int, key: str = "shared_expert_intermediate_size"
) -> Callable[[ConfigReader], int]:
    """Qwen2-MoE: one shared expert with a width of its own."""
    return lambda reader: reader.optional(key, default) or 0


def shared_experts(
    *, count: int, size: int | None, key: str = "moe_intermediate_size"
) -> Callable[[ConfigReader], int]:
    """DeepSeek: ``n_shared_experts`` of a routed expert's width, side by side.

    Parameters
    ----------
    count, size
        Class defaults of their number and of the width.
    key
        Key of the width.
    """

    def rule(reader: ConfigReader) -> int:
        shared = reader.optional("n_shared_experts", count) or 0
        return shared * reader.size(key, size) if shared else 0

    return rule


def deepseek_experts(
    count: int, per_token: int | None, size: int, *, dense: int = 1, shared: int = 1
) -> Mixture:
    """Experts as DeepSeek has them: after some dense layers, with shared ones of the same width.

    Parameters
    ----------
    count, per_token, size
        Class defaults, as in :class:`Mixture`.
    dense, shared
        Class defaults of the dense layers and of the shared experts.
    """
    return Mixture(
        count=count,
        per_token=per_token,
        size=size,
        sparse=after_first_dense(dense),
        shared_size=shared_experts(count=shared, size=size),
    )


def falcon_special(reader: ConfigReader) -> dict[str, Any]:
    """Falcon: how many norms a layer has."""
    norms = 2
    if reader.flag("parallel_attn", default=True):
        new = reader.flag("new_decoder_architecture")
        norms = reader.size("num_ln_in_parallel_attn", 2 if new else 1)
    return {"norms_per_layer": norms}


def opt_special(reader: ConfigReader) -> dict[str, Any]:
    """OPT: the smallest models have a narrower token table (350m) or norms without weights."""
    changes: dict[str, Any] = {}
    hidden = reader.hidden
    width = reader.size("word_embed_proj_dim", hidden)
    if width != hidden:
        changes["embedding_size"] = width
    before = reader.flag("do_layer_norm_before", default=True)
    if not before or reader.flag("_remove_final_layer_norm"):
        changes["extra_norms"] = 0
    if not reader.flag("layer_norm_elementwise_affine", default=True):
        changes["norm_weight"] = False
    return changes


def stablelm_special(reader: ConfigReader) -> dict[str, Any]:
    """StableLM: optional norms with weights for each head, and MLPs beside the attention."""
    changes: dict[str, Any] = {}
    if reader.flag("qk_layernorm"):
        changes = {"qk_norm": "all", "qk_norm_bias": False}
    if reader.flag("use_parallel_residual"):
        changes["norms_per_layer"] = 1
    return changes


def qwen_special(reader: ConfigReader) -> dict[str, Any]:
    """Qwen: ``intermediate_size`` is that of up and gate projection together."""
    return {"intermediate_size": reader.size("intermediate_size") // 2}


def baichuan_special(reader: ConfigReader) -> dict[str, Any]:
    """Baichuan: rotary encoding, but ALiBi in the models of 13 B, which are 5120 wide."""
    return {"rotary": reader.hidden != BAICHUAN_13B_WIDTH}


def neox_japanese_special(reader: ConfigReader) -> dict[str, Any]:
    """GPT-NeoX Japanese: the inner width is a multiple of the hidden one."""
    multiple = reader.size("intermediate_multiple_size", 4)
    return {"intermediate_size": multiple * reader.hidden}


def last_layer_bias(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """GPT-NeoX Japanese: only the last layer's output projection has a bias."""
    last = layer == reader.layers - 1
    return {"vectors": reader.hidden} if last else {}


def product(name: str, inner: int, columns: int, split: str = "columns") -> dict[str, Any]:
    """Return the fields of a further :class:`~simulator.inputs.model.Product`.

    Parameters
    ----------
    name, inner, columns
        What it is called, and its sizes.
    split
        How GPUs split it: by ``columns``, by ``rows``, or ``none``.
    """
    return {"name": name, "inner": inner, "columns": columns, "split": split}


def head_dim_of(reader: ConfigReader, default: int | None = None) -> int:
    """Return the width of a head: stated, a class default, or an equal share."""
    return reader.optional("head_dim", default, minimum=1) or reader.hidden // reader.heads


def afmoe_gate(reader: ConfigReader, _layer: int) -> dict[str, Any]:
    """AFMoE: a gate for each value of the attention's output."""
    return _gate(reader, reader.heads * head_dim_of(reader, 128))


def laguna_layer(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Laguna: heads by layer, and a gate for each head or each value."""
    listed = reader.items("num_attention_heads_per_layer", length=reader.layers)
    heads = reader.heads if listed is None else listed[layer]
    by_head = reader.data.get("gating", True) in (True, "per-head")
    columns = heads if by_head else heads * head_dim_of(reader, 128)
    return {"heads": heads, **_gate(reader, columns)}


def _gate(reader: ConfigReader, columns: int) -> dict[str, Any]:
    """Return the matrix of a gate on the attention's output."""
    return {"products": (product("attention_gate", reader.hidden, columns),)}


def axk1_norms(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """A.X K1: layers with experts have a third norm, after these."""
    return {"norms_per_layer": 3} if after_first_dense(1)(reader, layer) else {}


def diffllama_lambdas(reader: ConfigReader, _layer: int) -> dict[str, Any]:
    """DiffLlama: four vectors that weigh one half of the heads against the other."""
    return {"vectors": 4 * head_dim_of(reader)}


def doge_vectors(reader: ConfigReader, _layer: int) -> dict[str, Any]:
    """Doge: weights of both residuals, and a mask made from the values, with its slopes."""
    if reader.flag("is_moe"):
        reader.fail("is_moe = true: the experts of a Doge model are not modelled")
    kv_heads = stated_kv_heads(reader)
    width = kv_heads * head_dim_of(reader)
    mask = product("dynamic_mask", width, kv_heads)
    bias = kv_heads * reader.flag("attention_bias")
    return {"vectors": 2 * reader.hidden + kv_heads + bias, "products": (mask,)}
