"""Which layers see a window only, and which have experts; equal layers are merged."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simulator.inputs.hf_config.reader import ConfigReader, Key
from simulator.inputs.model import LayerGroup

LayerRule = Callable[[ConfigReader, int], bool]

_FULL, _LOCAL = "full_attention", ("sliding_attention", "chunked_attention")


def every_layer(_reader: ConfigReader, _layer: int) -> bool:
    """Hold for all layers."""
    return True


def all_but_every(step: int, key: str | None = None) -> LayerRule:
    """Hold for all layers but every ``step``-th; ``key`` names a step that the file may state."""

    def rule(reader: ConfigReader, layer: int) -> bool:
        return (layer + 1) % (reader.size(key, step) if key else step) != 0

    return rule


def from_max_window_layers(reader: ConfigReader, layer: int) -> bool:
    """Qwen2 and Qwen3: the layers past ``max_window_layers``."""
    return layer >= (reader.optional("max_window_layers", 28) or 0)


def even_below_max_window_layers(reader: ConfigReader, layer: int) -> bool:
    """Qwen2-MoE: every second layer below ``max_window_layers``."""
    return layer % 2 == 0 and layer < (reader.optional("max_window_layers", 28) or 0)


def rotary_layers(reader: ConfigReader, layer: int) -> bool:
    """Llama 4: the layers with rotary encoding attend in chunks, the others to everything."""
    # Llama-4-Scout's file has an empty list, which means the interval.
    if reader.items("no_rope_layers"):
        flags = reader.items("no_rope_layers", length=reader.size("num_hidden_layers")) or ()
        return bool(flags[layer])
    return (layer + 1) % reader.size("no_rope_layer_interval", 4) != 0


def every_sparse_step(reader: ConfigReader, layer: int) -> bool:
    """Qwen-MoE: every ``decoder_sparse_step``-th layer, those of ``mlp_only_layers`` left out."""
    dense = reader.items("mlp_only_layers") or ()
    return layer not in dense and (layer + 1) % reader.size("decoder_sparse_step", 1) == 0


def after_first_dense(default: int) -> LayerRule:
    """DeepSeek: all layers but the first ``first_k_dense_replace``."""

    def rule(reader: ConfigReader, layer: int) -> bool:
        return layer >= (reader.optional("first_k_dense_replace", default) or 0)

    return rule


def interleaved_experts(reader: ConfigReader, layer: int) -> bool:
    """Llama 4: the layers of ``moe_layers``, or every ``interleave_moe_layer_step``-th."""
    listed = reader.items("moe_layers")
    if listed is not None:
        return layer in listed
    return (layer + 1) % reader.size("interleave_moe_layer_step", 1) == 0


@dataclass(frozen=True)
class Windows:
    """How a family says which layers see a window only.

    Attributes
    ----------
    default
        Class default of the window.
    key
        Key of the window.
    switch
        Key that must be true for a window to hold at all.
    local
        The windowed layers, where the file has no ``layer_types``.
    """

    default: int | None = None
    key: str = "sliding_window"
    switch: str | None = None
    local: LayerRule = every_layer

    def read(self, reader: ConfigReader, layers: int) -> list[int | None]:
        """Return each layer's window, None for all tokens.

        Raises
        ------
        ModelError
            If ``layer_types`` names a layer that is not attention to all tokens or to a window.
        """
        # Qwen2-MoE writes 0 for no window.
        window = reader.optional(self.key, self.default) or None
        if self.switch and not reader.flag(Key(self.switch)):
            window = None
        types = reader.items("layer_types", length=layers)
        if types is None:
            local = [self.local(reader, layer) for layer in range(layers)]
        else:
            for kind in types:
                if kind != _FULL and kind not in _LOCAL:
                    reader.fail(
                        f"layer_types has {kind!r}; only {_FULL} and "
                        f"{' and '.join(_LOCAL)} are modelled"
                    )
            local = [kind in _LOCAL for kind in types]
        return [window if is_local else None for is_local in local]


def merge(windows: Iterable[int | None], sparse: Iterable[bool]) -> tuple[LayerGroup, ...]:
    """Merge the layers that cost the same, in the order they first occur."""
    counts = Counter(zip(windows, sparse, strict=True))
    return tuple(
        LayerGroup(count=count, window=window, sparse=has_experts)
        for (window, has_experts), count in counts.items()
    )
