"""Whole decode steps: one model's weights at a time, caches for each layout, and the check."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from simulator.counts.transformer import visible_tokens
from simulator.evidence.kernels.layout import Normal, attention_inputs
from simulator.evidence.measure.cells import Cell, StepCell
from simulator.evidence.measure.correctness import TOLERANCES, reference_attention, relative_error
from simulator.evidence.measure.device import TORCH_DTYPES, Device
from simulator.evidence.measure.transformer import Attention, Cache, Decoder, layers_of

# A layer rounds a dozen times where a kernel rounds twice.
STEP_TOLERANCE = {dtype: 3 * tolerance for dtype, tolerance in TOLERANCES.items()}
_CHECK_VOCABULARY, _CHECK_CONTEXT, _CHECK_DECODED, _CHECK_SAMPLES = 512, 96, 5, 3


class Steps:
    """Builds and keeps the weights and caches of whole steps."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._errors: dict[tuple[str, str], float] = {}
        self._decoder: tuple[str, Decoder] | None = None

    def calls(self, cells: Sequence[StepCell]) -> list[Callable[[], Tensor]]:
        """Return a function for each cell that runs one step; cells of a layout share caches."""
        decoder = self._weights(cells[0])
        tokens = cells[0].sequences * cells[0].query_tokens
        decoder.place(tokens)
        ids = torch.randint(cells[0].model.vocab_size, (tokens,), device=self._device.torch_device)
        caches: dict[str, list[Cache]] = {}
        ready: list[Callable[[], Tensor]] = []
        for cell in cells:
            layout = cell.implementation.layout
            if layout not in caches:
                caches[layout] = step_caches(cell, self._device.normal)
            ready.append(partial(decoder, ids, caches[layout], attention(cell, caches[layout])))
        return ready

    def error(self, cell: StepCell) -> float:
        """Return the relative error of the logits of one layer and the head, on a small workload.

        It is computed once per model and kernel. The attention cells check the kernel at the cell's
        sizes.
        """
        key = (_weights_key(cell), cell.kernel)
        if key not in self._errors:
            self._errors[key] = self._error(cell)
        return self._errors[key]

    def l2_state(self, cell: StepCell) -> str:
        """Return ``cold`` if the weights evict everything else from L2, else ``mixed``."""
        self._weights(cell)
        return "cold" if self.loaded_bytes >= 2 * self._device.l2_bytes else "mixed"

    @property
    def loaded_bytes(self) -> int:
        """Memory of the loaded weights. [bytes]."""
        if self._decoder is None:
            return 0
        return sum(parameter.nbytes for parameter in self._decoder[1].parameters())

    def forget(self, keep: Cell | None = None) -> None:
        """Free the loaded weights, unless ``keep`` needs them."""
        wanted = _weights_key(keep) if isinstance(keep, StepCell) else None
        if self._decoder is not None and self._decoder[0] != wanted:
            self._decoder = None

    def _weights(self, cell: StepCell) -> Decoder:
        """Return a decoder with random weights; only one model's weights are kept."""
        key = _weights_key(cell)
        if self._decoder is None or self._decoder[0] != key:
            self._decoder = None
            self._decoder = (key, self._made(cell))
        return self._decoder[1]

    def _made(self, cell: StepCell) -> Decoder:
        """Build a decoder on the device."""
        return Decoder(
            cell.model,
            dtype=TORCH_DTYPES[cell.dtype],
            device=self._device.torch_device,
            # The same cost at every position.
            position=_CHECK_CONTEXT + _CHECK_DECODED - 1,
            query_tokens=cell.query_tokens,
        )

    def _error(self, cell: StepCell) -> float:
        """Compare one layer and the head with their float64 reference."""
        group = cell.model.layer_groups[0].but(count=1)
        changes = {"layers": 1, "layer_groups": (group,), "vocab_size": _CHECK_VOCABULARY}
        small = replace(
            cell,
            model=cell.model.but(**changes),
            prompts=1,
            samples=_CHECK_SAMPLES,
            context_tokens=_CHECK_CONTEXT,
            decoded_tokens=_CHECK_DECODED - 1 + cell.query_tokens,
        )
        decoder = self._made(small)
        caches = step_caches(small, self._device.normal)
        wide_caches: list[Cache] = [
            (cache[0], *(part.double() for part in cache[1:]))  # type: ignore[misc]
            for cache in caches
        ]
        tokens = torch.arange(
            _CHECK_SAMPLES * cell.query_tokens, device=self._device.torch_device
        ).remainder(_CHECK_VOCABULARY)
        found = decoder.logits(tokens, caches, attention(small, caches))
        wanted = copy.deepcopy(decoder).double().logits(tokens, wide_caches, reference_attention)
        return relative_error(found, wanted) if bool(torch.isfinite(found).all()) else math.inf


def _weights_key(cell: StepCell) -> str:
    """Return a key for a cell's weights and position tables."""
    return f"{cell.model_key} {cell.dtype} n{cell.query_tokens}"


def attention(cell: StepCell, caches: Sequence[Cache]) -> Attention:
    """Return a step's attention with its masks made in advance."""
    lengths = (keys.shape[2] + decoded_keys.shape[3] for _, keys, _, decoded_keys, _ in caches)
    return cell.implementation.with_masks(cell.query_tokens, lengths, caches[0][1].device)


def step_caches(cell: StepCell, normal: Normal) -> list[Cache]:
    """Fill the caches of every layer; a layer with a sliding window keeps only its window.

    A layer that shares a cache has that of the last layer before it with the same window.
    """
    layout, dtype = cell.implementation.layout, TORCH_DTYPES[cell.dtype]
    caches: list[Cache] = []
    kept: dict[tuple[int | None, int | None], Cache] = {}
    for group in layers_of(cell.model):
        seen = group.window, group.chunk
        if group.kv == "earlier" and seen in kept:
            caches.append(kept[seen])
            continue
        context, decoded = visible_tokens(group, cell.context_tokens, cell.decoded_tokens)
        visible = replace(cell, context_tokens=context, decoded_tokens=decoded)
        kept[seen] = attention_inputs(visible, layout, dtype, normal, query=False)
        caches.append(kept[seen])
    return caches
