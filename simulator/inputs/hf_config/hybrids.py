"""Rules of hybrid models: states in place of attention, or beside it, and layers of one part alone.

Each type has a rule for its keys, which returns what a file says by the common names (above all
``layer_types``), and a rule for the fields of a layer, as in
:mod:`simulator.inputs.hf_config.layers`.

Source: configuration and modelling classes of transformers 5.24.0.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from simulator.inputs.hf_config.layers import HEADS, kind_of, kinds_of
from simulator.inputs.hf_config.reading import (
    FULL,
    LINEAR,
    NAMES,
    WINDOWED,
    ConfigReader,
    Flag,
    listed,
)
from simulator.inputs.hf_config.rules import head_dim_of, product

MLP, MOE, HYBRID, CONVOLUTION = "mlp", "moe", "hybrid", "conv"
Width: TypeAlias = Callable[[ConfigReader], int]


def is_moe(reader: ConfigReader, layer: int) -> bool:
    """Nemotron-H: the layers that are a mixture of experts alone."""
    return kind_of(reader, layer) == MOE


def nemotron_keys(reader: ConfigReader) -> dict[str, Any]:
    """Nemotron-H: a pattern of layers with one part each; its class never ties the output."""
    kinds = listed(reader, "layers_block_type", "layer_types")
    if kinds is None:
        stated = reader.data.get("hybrid_override_pattern")
        pattern = "ME*-" if stated is None else stated
        if not isinstance(pattern, str):
            reader.fail(f"hybrid_override_pattern = {pattern!r} must be a text such as 'M-M*'")
        kinds = [NAMES.get(letter, letter) for letter in pattern]
    return {
        "num_hidden_layers": len(kinds),
        "layer_types": kinds,
        "num_key_value_heads": reader.optional("num_key_value_heads", 8),
        "tie_word_embeddings": False,
    }


def nemotron_h(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Nemotron-H: each layer is attention, Mamba-2, an MLP or experts, and nothing else."""
    kind = kind_of(reader, layer)
    if kind in (MLP, MOE):
        return {"attends": False}
    if kind == FULL:
        return {"mlp": "none"}
    state = mamba2(reader, inner=_width_of_heads, groups=8, width=128, chunk=128)
    return {"attends": False, "mlp": "none", "state": state}


def _width_of_heads(reader: ConfigReader) -> int:
    """Return the width of Mamba-2's values from its heads (Nemotron-H)."""
    return reader.size("mamba_heads", 128) * reader.size("mamba_head_dim", 64)


def nemotron_experts(reader: ConfigReader) -> dict[str, Any]:
    """Nemotron 3: tokens are projected to a narrower width for the routed experts."""
    return {"latent_size": reader.optional("moe_latent_size", None, minimum=1)}


def bamba_layers(reader: ConfigReader, layer: int) -> bool:
    """Bamba: all but the layers of ``attn_layer_indices`` have a state."""
    return layer not in (reader.items("attn_layer_indices") or ())


def granite_hybrid_special(reader: ConfigReader) -> dict[str, Any]:
    """Granite 4: rotary encoding only where the file says so."""
    return {"rotary": reader.data.get("position_embedding_type") == "rope"}


def falcon_h1_width(reader: ConfigReader) -> int:
    """Falcon-H1: the width of Mamba-2's values has a key of its own."""
    return reader.optional("mamba_d_ssm", 1024, minimum=1) or expanded(reader)


def mamba2(
    reader: ConfigReader,
    *,
    inner: Width | None = None,
    groups: int,
    width: int,
    heads: int = 128,
    chunk: int = 256,
    biases: tuple[str, str] = ("use_bias", "use_bias"),
    normed: Flag = True,
    convolution_bias: bool | None = None,
) -> dict[str, Any]:
    """Return a Mamba-2 layer: gates, values, keys and queries of each group, and time steps.

    Parameters
    ----------
    inner
        Gives the width of the values of all heads; by default a multiple of the hidden size.
    groups, width, heads, chunk
        Class defaults: heads of keys, their width, heads of values, and tokens of a chunk.
    biases
        Keys that say whether the input and the output projection have biases.
    normed
        Whether a norm follows.
    convolution_bias
        Whether the convolution has biases, if no key decides.
    """
    bias, output_bias = map(reader.flag, biases)
    hidden, values = reader.hidden, (inner or expanded)(reader)
    heads, groups = reader.size("mamba_heads", heads), reader.size("mamba_groups", groups)
    width = reader.size("mamba_state_size", width)
    if values % heads:
        reader.fail(f"the width {values} of Mamba's values is not a multiple of its {heads} heads")
    if convolution_bias is None:
        convolution_bias = _convolution_bias(reader)
    channels = values + 2 * groups * width
    columns = values + channels + heads
    # Decays, skips and biases of time steps for each head.
    vectors = 3 * heads + values * reader.choice(normed) + channels * convolution_bias
    return {
        "rule": "decay",
        **dict(zip(HEADS, (groups, width, heads, values // heads), strict=True)),
        "columns": columns,
        "channels": channels,
        "taps": reader.size("conv_kernel", 4),
        "chunk": reader.size("chunk_size", chunk),
        "vectors": vectors + columns * bias + hidden * output_bias,
    }


def expanded(reader: ConfigReader) -> int:
    """Return the width of Mamba's values, a multiple of the hidden size."""
    return reader.size("expand", 2) * reader.hidden


def _convolution_bias(reader: ConfigReader) -> bool:
    """Return whether the convolution has biases."""
    default = reader.flag("use_conv_bias", default=True)
    return reader.flag("mamba_conv_bias", default=default)


def jamba_layers(reader: ConfigReader, layer: int) -> bool:
    """Jamba: all but one layer of each period have a state."""
    period = reader.size("attn_layer_period", 8)
    offset = reader.optional("attn_layer_offset", 4) or 0
    return layer < offset or (layer - offset) % period != 0


def jamba_experts(reader: ConfigReader, layer: int) -> bool:
    """Jamba: one layer of each period has experts."""
    period = reader.size("expert_layer_period", 2)
    offset = reader.optional("expert_layer_offset", 1) or 0
    return layer % period == offset and reader.size("num_experts", 16) > 1


def mamba_width(reader: ConfigReader) -> int:
    """Mamba: Falcon-Mamba-7B's file has an expand of 16 beside the true width."""
    return reader.size("intermediate_size", expanded(reader))


def mamba(
    reader: ConfigReader,
    *,
    inner: Width | None = None,
    bias: str = "mamba_proj_bias",
    heads: int = 1,
    normed: bool = False,
) -> dict[str, Any]:
    """Return a Mamba layer: each channel has a state; time steps, keys and queries follow from it.

    Parameters
    ----------
    inner
        Gives the number of channels; by default a multiple of the hidden size.
    bias
        Key that says whether the input and the output projection have biases.
    heads
        Heads of keys (Zamba).
    normed
        Whether norms follow on time steps, keys and queries.
    """
    biased, channels = reader.flag(bias), (inner or expanded)(reader)
    hidden, width = reader.hidden, reader.size("mamba_state_size", 16)
    rank = -(-hidden // 16)
    if reader.lookup("time_step_rank")[1] != "auto":
        rank = reader.size("time_step_rank", rank)
    selected = rank + 2 * width
    # Biases of time steps, decays and skips.
    vectors = channels * (1 + width + 1) + channels * _convolution_bias(reader)
    return {
        "rule": "scan",
        **dict(zip(HEADS, (heads, width, channels, 1), strict=True)),
        "columns": 2 * channels,
        "channels": channels,
        "taps": reader.size("conv_kernel", 4),
        "products": [
            product("selection", channels, selected, "rows"),
            product("time_step_projection", rank, channels),
        ],
        "vectors": vectors + selected * normed + (2 * channels + hidden) * biased,
    }


def zamba_keys(reader: ConfigReader) -> dict[str, Any]:
    """Zamba: attention over twice the hidden size, in layers at a period after the first three."""
    period = reader.size("attn_layer_period", 6)
    offset = reader.optional("attn_layer_offset", 4) or 0
    shared = {2, *range(offset + 3, reader.layers, period)}
    kv_heads = reader.optional("num_key_value_heads", 16)
    return {**_zamba_layers(reader, shared, reader.layers), "num_key_value_heads": kv_heads}


def zamba2_keys(reader: ConfigReader) -> dict[str, Any]:
    """Zamba2: attention over twice the hidden size, in the layers of a list."""
    inner = reader.optional("intermediate_size", None) or 4 * reader.hidden
    shared = {*range(6, 43, 6), 47, 51}
    return {**_zamba_layers(reader, shared, 54), "intermediate_size": inner}


def _zamba_layers(reader: ConfigReader, shared: Collection[int], layers: int) -> dict[str, Any]:
    """Return the kinds of layers, and the width of heads that read twice the hidden size.

    Parameters
    ----------
    shared, layers
        Layers with a shared block, and how many there are, if the file does not list the kinds.
    """
    kinds = listed(reader, "layers_block_type", "layer_types")
    if kinds is None:
        kinds = [HYBRID if layer in shared else LINEAR for layer in range(layers)]
    width = 2 * reader.hidden // reader.heads
    return {
        "num_hidden_layers": len(kinds),
        "layer_types": kinds,
        "head_dim": reader.optional("attention_head_dim", None, minimum=1) or width,
    }


def zamba_special(reader: ConfigReader) -> dict[str, Any]:
    """Zamba: attention reads the hidden state and the token's embedding."""
    width = reader.optional("attention_hidden_size", None, minimum=1)
    return {"attention_input_size": width or 2 * reader.hidden}


def zamba(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Zamba: Mamba, and before it in some layers one block of attention and an MLP."""
    state = mamba(reader, heads=reader.size("mamba_heads", 2))
    return _zamba_layer(reader, layer, state, distinct=1, adapters=[])


def zamba2(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Zamba2: Mamba-2, and before it in some layers one of a few blocks, with adapters."""
    hidden, biases = reader.hidden, ("add_bias_linear", "add_bias_linear")
    state = mamba2(reader, groups=1, width=64, heads=8, biases=biases, convolution_bias=True)
    rank, up = reader.size("adapter_rank", 128), 2 * reader.size("intermediate_size")
    adapters = [("mlp_adapter", hidden, rank, up)]
    if reader.flag("use_shared_attention_adapter"):
        adapters.append(("attention_adapters", 2 * hidden, 3 * rank, 2 * hidden))
    return _zamba_layer(
        reader, layer, state, distinct=reader.size("num_mem_blocks", 1), adapters=adapters
    )


def _zamba_layer(
    reader: ConfigReader,
    layer: int,
    state: dict[str, Any],
    *,
    distinct: int,
    adapters: Sequence[tuple[str, int, int, int]],
) -> dict[str, Any]:
    """Return a layer with a state, and with a shared block and its adapters if it is a hybrid.

    Parameters
    ----------
    distinct
        Blocks with weights of their own.
    adapters
        Names, inputs, ranks of all together, and outputs of the layer's own low-rank matrices.
    """
    if kind_of(reader, layer) != HYBRID:
        return {"attends": False, "mlp": "none", "state": state}
    hidden = reader.hidden
    hybrids = [kind == HYBRID for kind in reader.items("layer_types") or ()]
    products = [product("block_output", hidden, hidden, "none")]
    for name, inner, rank, columns in adapters:
        products.append(product(f"{name}_down", inner, rank, "none"))
        products.append(product(f"{name}_up", rank, columns))
    return {
        "state": state,
        "distinct": min(distinct, sum(hybrids)),
        "products": products,
        "vectors": hidden,  # the norm before the state
    }


def lfm2_layers(reader: ConfigReader, layer: int) -> bool:
    """LFM2: short convolutions where the file does not list attention."""
    full = reader.items("full_attn_idxs")
    return full is not None and layer not in full


def lfm2_keys(reader: ConfigReader) -> dict[str, Any]:
    """LFM2: a key of its own."""
    tied = "tie_embedding" in reader.data
    return {"tie_word_embeddings": reader.flag("tie_embedding", default=True)} if tied else {}


def lfm2_dense_keys(reader: ConfigReader) -> dict[str, Any]:
    """LFM2: the MLP has two thirds of the stated width, times a factor, rounded up."""
    inner = reader.size("block_ff_dim", reader.size("intermediate_size"))
    if reader.flag("block_auto_adjust_ff_dim", default=True):
        inner = int(2 * inner / 3)
        factor = reader.data.get("block_ffn_dim_multiplier", 1.0)
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            reader.fail(f"block_ffn_dim_multiplier = {factor!r} must be a number")
        step = reader.size("block_multiple_of", 256)
        inner = step * -(-int(factor * inner) // step)
    return {**lfm2_keys(reader), "intermediate_size": inner}


def lfm2(reader: ConfigReader) -> dict[str, Any]:
    """LFM2: a gated short convolution in place of attention."""
    hidden = reader.hidden
    return {
        "rule": "convolution",
        "v_heads": hidden,
        "v_dim": 1,
        "columns": 3 * hidden,
        "channels": hidden,
        "taps": reader.size("conv_L_cache", 3),
        "vectors": 5 * hidden * reader.flag("conv_bias"),
    }


def minimax_layers(reader: ConfigReader, layer: int) -> bool:
    """MiniMax-Text-01: a state where a list says so, by default in every second layer."""
    numbers = reader.items("attn_type_list", length=reader.layers)
    return layer % 2 == 1 if numbers is None else numbers[layer] != 1


def minimax(reader: ConfigReader) -> dict[str, Any]:
    """MiniMax-Text-01: lightning attention, with an output gate and a norm."""
    heads, head_dim = reader.heads, head_dim_of(reader)
    return {
        "rule": "decay",
        **dict(zip(HEADS, (heads, head_dim, heads, head_dim), strict=True)),
        "columns": 4 * heads * head_dim,
        "chunk": reader.size("block_size", 256),
        "vectors": heads * head_dim,
    }


def recurrent_gemma_keys(reader: ConfigReader) -> dict[str, Any]:
    """RecurrentGemma: a pattern of blocks over the layers; half the stated width for each MLP."""
    kinds = listed(reader, "block_types") or [LINEAR, LINEAR, FULL]
    local = [WINDOWED if kind == FULL else kind for kind in kinds]
    return {
        "layer_types": kinds_of(reader, lambda layer: local[layer % len(local)]),
        "intermediate_size": reader.size("intermediate_size") // 2,
    }


def recurrent_gemma(reader: ConfigReader) -> dict[str, Any]:
    """RecurrentGemma: gated linear recurrent units, a state for each channel."""
    hidden, heads = reader.hidden, reader.heads
    width = reader.optional("lru_width", None, minimum=1) or hidden
    return {
        "rule": "scan",
        "k_dim": 1,
        "v_heads": heads,
        "v_dim": width // heads,
        "columns": 2 * width,
        "channels": width,
        "taps": reader.size("conv1d_width", 4),
        # Two gates, with a matrix for each head.
        "products": [product("recurrent_gates", width // heads, 2 * width)],
        # Biases of the projections, the convolution and the gates; the decays.
        "vectors": 2 * width + hidden + width + 2 * width + width,
    }


def zaya_keys(reader: ConfigReader) -> dict[str, Any]:
    """ZAYA1: every layer attends, to all tokens or to a window."""
    names = {"hybrid": FULL, "hybrid_sliding": WINDOWED}
    kinds = kinds_of(reader, lambda _: FULL, "layer_types")
    return {"layer_types": [names.get(kind, kind) for kind in kinds]}


def zaya(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """ZAYA1: convolutions over queries and keys, scaled residuals, and a router with an MLP."""
    hidden, width = reader.hidden, reader.size("head_dim", 128)
    kv_heads = reader.size("num_key_value_heads", 2)
    channels = (reader.heads + kv_heads) * width
    taps = reader.size("cca_time0", 2)
    grouped = product("grouped_convolution", width * reader.size("cca_time1", 2), channels)
    router = reader.size("router_hidden_size", 256)
    # Taps and biases of the convolutions, a scale for each head of keys, scaled residuals, and the
    # router's biases, norm and, after the first layer, scales of the layer before.
    vectors = channels * (taps + 2) + kv_heads + 8 * hidden + router * (4 + (layer > 0))
    return {"products": [grouped], "vectors": vectors}


def zaya_router(reader: ConfigReader) -> dict[str, Any]:
    """ZAYA1: a router of four matrices, which may also choose no expert."""
    width = reader.size("router_hidden_size", 256)
    classes = reader.size("num_experts", 16) + 1
    return {
        "router": [
            product("router_down", reader.hidden, width, "none"),
            product("router_hidden", width, width, "none"),
            product("router_hidden_2", width, width, "none"),
            product("router", width, classes, "none"),
        ]
    }
