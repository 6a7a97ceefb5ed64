"""The towers of a multimodal file, which encode images and sound: about how many parameters.

Only what is in memory is needed, so the count is approximate: matrices, patches and positions, but
no norms or biases. It lies within 5 % of the modules that transformers 5.24.0 builds; the table is
in tests/inputs/test_towers.py.
"""

from collections.abc import Iterator, Mapping
from typing import Any

# The part of the file that describes each tower.
TOWERS = {"vision": "vision_config", "audio": "audio_config"}

# The names of each size; the first that the file states counts. Qwen2-VL has its width under
# embed_dim, and the text decoder's under hidden_size.
_LAYERS = ("num_hidden_layers", "depth", "encoder_layers", "vt_num_hidden_layers")
_WIDTH = ("embed_dim", "hidden_size", "d_model", "vt_hidden_size")
_INNER = ("intermediate_size", "encoder_ffn_dim", "vt_intermediate_size")
_MERGE = ("spatial_merge_size", "merge_kernel_size")
# Llama 3.2 Vision has a position table for each of its eight shapes of tiles, and one for none.
_TILE_SHAPES = 9


def tower_parameters(config: Mapping[str, Any], text_width: int) -> dict[str, int]:
    """Count the parameters of each tower that a file describes, its projector included.

    Parameters
    ----------
    config
        The whole file.
    text_width
        Hidden size of the text decoder, which the projector ends in.

    Returns
    -------
    dict
        Parameters by tower; 0 for one whose sizes are not stated plainly.
    """
    thinker = config.get("thinker_config")  # Qwen's Omni models, besides one that speaks
    config = thinker if isinstance(thinker, Mapping) else config
    two_layers = "projector_hidden_act" in config
    return {
        name: _tower(tower, text_width, two_layers=two_layers)
        for name, key in TOWERS.items()
        if isinstance(tower := config.get(key), Mapping)
    }


def _tower(tower: Mapping[str, Any], text_width: int, *, two_layers: bool) -> int:
    """Count a tower and its projector, 0 without a stated depth or width."""
    layers, width = _size(tower, *_LAYERS), _size(tower, *_WIDTH)
    if not layers or not width:
        return 0
    layers += _size(tower, "num_global_layers")
    inner = _size(tower, *_INNER) or _size(tower, "mlp_ratio", default=4) * width
    # Towers with SiLU, and Gemma's, whose key of the activation is hidden_activation, are gated.
    gated = tower.get("hidden_act") == "silu" or "hidden_activation" in tower
    encoder = layers * (4 * width**2 + (3 if gated else 2) * width * inner)
    return (
        encoder
        + sum(_inputs(tower, width))
        + _projector(tower, width=width, inner=inner, text_width=text_width, two_layers=two_layers)
    )


def _inputs(tower: Mapping[str, Any], width: int) -> Iterator[int]:
    """Yield the parameters that patches of an image, or frames of sound, and positions take."""
    patch, image = _size(tower, "patch_size"), _size(tower, "image_size")
    yield patch**2 * 3 * _size(tower, "temporal_patch_size", default=1) * width
    if bins := _size(tower, "num_mel_bins"):  # two convolutions of three frames
        yield 3 * width * (bins + width)
    tiles = _size(tower, "max_num_tiles")
    positions = _size(tower, "num_position_embeddings", "max_source_positions")
    positions += 2 * _size(tower, "position_embedding_size")  # one table for each axis
    if patch and not positions:
        positions = (image // patch) ** 2 * (_TILE_SHAPES * tiles if tiles else 1)
    yield positions * width


def _projector(
    tower: Mapping[str, Any], *, width: int, inner: int, text_width: int, two_layers: bool
) -> int:
    """Count what leads from a tower to the text decoder."""
    if merge := _size(tower, *_MERGE):
        # Neighbouring patches go through two layers, in some towers after several of its layers.
        merged = merge**2 * width
        levels = tower.get("deepstack_visual_indexes")
        mergers = 1 + (len(levels) if isinstance(levels, list) else 0)
        return mergers * merged * (merged + text_width)
    adapter = _size(tower, "projector_input_dim") * (inner + _size(tower, "projector_output_dim"))
    first = (_size(tower, "vision_output_dim") or width) * text_width
    return adapter + first + (text_width**2 if two_layers else 0)


def _size(tower: Mapping[str, Any], *names: str, default: int = 0) -> int:
    """Return the first of these sizes that is stated as a whole number, or as a list of equals."""
    for name in names:
        value = tower.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return default
