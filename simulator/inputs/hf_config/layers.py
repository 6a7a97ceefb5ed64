"""Rules of the model types whose layers differ: what each layer is, from the keys of a config.json.

Each rule takes a reader and the number of a layer, from 0, and returns those fields of the layer's
:class:`~simulator.inputs.model.LayerGroup` that the model type decides.

Source: configuration and modelling classes of transformers 5.24.0.
"""

from collections.abc import Mapping
from typing import Any

from simulator.inputs.hf_config.reading import ConfigReader

LINEAR = "linear_attention"


def is_linear(reader: ConfigReader, layer: int, *, interval: int = 4) -> bool:
    """Return whether a layer is linear attention: as the file lists, else all but every n-th."""
    types = reader.items("layer_types", length=reader.size("num_hidden_layers"))
    if types is not None:
        return bool(types[layer] == LINEAR)
    return (layer + 1) % reader.size("full_attention_interval", interval) != 0


def gated_delta(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Qwen3-Next and Qwen3.5: gated delta nets, every fourth layer attends."""
    if not is_linear(reader, layer):
        return {}
    return {"attends": False, "state": _gated_delta_net(reader, k_heads=16, v_heads=32)}


def olmo_hybrid(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Olmo-Hybrid: gated delta nets without norms after them, every fourth layer attends."""
    if not is_linear(reader, layer):
        return {}
    heads = reader.size("num_attention_heads")
    head_dim = reader.size("hidden_size") * 3 // (4 * heads)
    state = _gated_delta_net(
        reader, k_heads=heads, v_heads=heads, k_dim=head_dim, v_dim=2 * head_dim
    )
    return {"attends": False, "state": state}


def _gated_delta_net(
    reader: ConfigReader, *, k_heads: int, v_heads: int, k_dim: int = 128, v_dim: int = 128
) -> dict[str, Any]:
    """Return a gated delta net: queries, keys, values, an output gate, a decay and a strength."""
    k_heads = reader.size("linear_num_key_heads", k_heads)
    k_dim = reader.size("linear_key_head_dim", k_dim)
    v_heads = reader.size("linear_num_value_heads", v_heads)
    v_dim = reader.size("linear_value_head_dim", v_dim)
    keys, values = k_heads * k_dim, v_heads * v_dim
    return {
        "rule": "delta",
        "k_heads": k_heads,
        "k_dim": k_dim,
        "v_heads": v_heads,
        "v_dim": v_dim,
        "columns": 2 * keys + 2 * values + 2 * v_heads,
        "channels": 2 * keys + values,
        "taps": reader.size("linear_conv_kernel_dim", 4),
        "vectors": 2 * v_heads + v_dim,  # decays and their biases, and the norm of a head's output
    }


def kimi_delta(reader: ConfigReader, layer: int) -> dict[str, Any]:
    """Kimi Linear: delta attention with a decay for each channel, every fourth layer latent."""
    stated = reader.data.get("linear_attn_config")
    linear: Mapping[str, Any] = stated if isinstance(stated, Mapping) else {}
    listed = linear.get("kda_layers")
    if isinstance(listed, list) and reader.items("layer_types") is None:
        is_delta = layer + 1 in listed  # numbered from 1
    elif reader.items("layer_types") is None:
        is_delta = layer % 4 != 0 or layer == 0
    else:
        is_delta = is_linear(reader, layer)
    if not is_delta:
        return {}
    own = reader.with_keys(linear)
    heads = own.size("num_heads", reader.size("linear_num_heads", 32))
    width = linear.get("head_dim", reader.size("linear_head_dim", 128))
    taps = own.size("short_conv_kernel_size", reader.size("linear_conv_kernel_dim", 4))
    values = heads * width
    # Decays and the output gate come from a narrow product each, then one to all channels.
    narrow = [
        {"name": f"{name}_up_projection", "inner": width, "columns": values}
        for name in ("decay", "gate")
    ]
    return {
        "attends": False,
        "state": {
            "rule": "channel_delta",
            "k_heads": heads,
            "k_dim": width,
            "v_heads": heads,
            "v_dim": width,
            "columns": 3 * values + heads + 2 * width,
            "channels": 3 * values,
            "taps": taps,
            "products": narrow,
            "vectors": values + heads + width,
        },
    }


def listed_dense(reader: ConfigReader, layer: int) -> bool:
    """Return whether a layer has experts: as ``mlp_layer_types`` lists, else after dense ones."""
    types = reader.items("mlp_layer_types", length=reader.size("num_hidden_layers"))
    if types is not None:
        return bool(types[layer] == "sparse")
    return layer >= (reader.optional("first_k_dense_replace", 1) or 0)
