"""Whole decode steps: one model's weights at a time, caches by layout, and the check."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from simulator.counts.transformer import visible_tokens
from simulator.evidence.kernels import KERNELS
from simulator.evidence.measure.cells import IMPLEMENTATIONS, Cell, Layout, StepCell
from simulator.evidence.measure.correctness import (
    TOLERANCES,
    reference_attention,
    relative_error,
)
from simulator.evidence.measure.device import TORCH_DTYPES, Device
from simulator.evidence.measure.inputs import Normal, Sizes, attention_inputs
from simulator.evidence.measure.modules import Cache
from simulator.evidence.measure.transformer import Decoder, layer_windows
from simulator.inputs.model import ModelShape

# A layer rounds a dozen times where a kernel rounds twice.
STEP_TOLERANCE = {dtype: 3 * tolerance for dtype, tolerance in TOLERANCES.items()}
_CHECK_VOCABULARY, _CHECK_CONTEXT, _CHECK_DECODED, _CHECK_SAMPLES = 512, 96, 5, 3


class Steps:
    """Builds and keeps what whole steps need."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._errors: dict[tuple[str, str, str], float] = {}
        self._decoder: tuple[str, Decoder] | None = None

    def calls(self, cells: Sequence[StepCell]) -> list[Callable[[], Tensor]]:
        """Return a function for each cell of a group that runs one step; layouts share caches."""
        decoder = self._weights(cells[0])
        tokens = cells[0].prompts * cells[0].samples
        decoder.place(tokens)
        ids = torch.randint(cells[0].model.vocab_size, (tokens,), device=self._device.torch_device)
        caches: dict[Layout, list[Cache]] = {}
        ready: list[Callable[[], Tensor]] = []
        normal = self._device.normal
        for cell in cells:
            layout = IMPLEMENTATIONS[cell.kernel].layout
            if layout not in caches:
                caches[layout] = step_caches(
                    cell.model,
                    sizes_of(cell),
                    layout,
                    TORCH_DTYPES[cell.dtype],
                    normal,
                )
            function = KERNELS[cell.kernel].function
            ready.append(partial(decoder, ids, caches[layout], function))
        return ready

    def error(self, cell: StepCell) -> float:
        """Return the relative error of the logits of one layer and a head, on a small workload.

        Once for each model and kernel: what a kernel does at the cell's own size is checked by
        its own cells.
        """
        key = (cell.model_key, cell.kernel, cell.dtype)
        if key not in self._errors:
            self._errors[key] = self._error(cell)
        return self._errors[key]

    def l2_state(self, cell: StepCell) -> str:
        """Return ``cold`` where the weights push everything else out of L2."""
        self._weights(cell)
        return "cold" if self.loaded_bytes >= 2 * self._device.l2_bytes else "mixed"

    @property
    def loaded_bytes(self) -> int:
        """Memory of the weights at hand. [bytes]."""
        if self._decoder is None:
            return 0
        return sum(parameter.nbytes for parameter in self._decoder[1].parameters())

    def forget(self, keep: Cell | None = None) -> None:
        """Free the weights of the model at hand, unless they are those of a cell to come."""
        wanted = _weights_key(keep) if isinstance(keep, StepCell) else None
        if self._decoder is not None and self._decoder[0] != wanted:
            self._decoder = None

    def _weights(self, cell: StepCell) -> Decoder:
        """Return a decoder with random weights; only one model's are kept."""
        key = _weights_key(cell)
        if self._decoder is None or self._decoder[0] != key:
            self._decoder = None
            self._decoder = (key, self._made(cell.model, cell))
        return self._decoder[1]

    def _made(self, model: ModelShape, cell: StepCell) -> Decoder:
        """Build a decoder on the device."""
        return Decoder(
            model,
            dtype=TORCH_DTYPES[cell.dtype],
            device=self._device.torch_device,
            # The same cost at every position.
            position=_CHECK_CONTEXT + _CHECK_DECODED - 1,
        )

    def _error(self, cell: StepCell) -> float:
        """Compare one layer and the head with the same in float64."""
        group = cell.model.layer_groups[0].model_copy(update={"count": 1})
        small = cell.model.model_copy(
            update={"layers": 1, "layer_groups": (group,), "vocab_size": _CHECK_VOCABULARY}
        )
        decoder = self._made(small, cell)
        sizes = Sizes(
            prompts=1,
            samples=_CHECK_SAMPLES,
            heads=small.heads,
            kv_heads=small.kv_heads,
            head_dim=small.head_dim,
            context_tokens=_CHECK_CONTEXT,
            decoded_tokens=_CHECK_DECODED,
        )
        layout = IMPLEMENTATIONS[cell.kernel].layout
        caches = step_caches(small, sizes, layout, TORCH_DTYPES[cell.dtype], self._device.normal)
        wide_caches: list[Cache] = [
            (cache[0], *(part.double() for part in cache[1:]))  # type: ignore[misc]
            for cache in caches
        ]
        tokens = torch.arange(_CHECK_SAMPLES, device=self._device.torch_device)
        found = decoder.logits(tokens, caches, KERNELS[cell.kernel].function)
        wanted = copy.deepcopy(decoder).double().logits(tokens, wide_caches, reference_attention)
        return relative_error(found, wanted) if bool(torch.isfinite(found).all()) else math.inf


def _weights_key(cell: StepCell) -> str:
    """Return what decides which weights a cell needs."""
    return f"{cell.model_key} {cell.dtype}"


def sizes_of(cell: StepCell) -> Sizes:
    """Return the attention sizes of a step's layers without a window."""
    return Sizes(
        prompts=cell.prompts,
        samples=cell.samples,
        heads=cell.model.heads,
        kv_heads=cell.model.kv_heads,
        head_dim=cell.model.head_dim,
        context_tokens=cell.context_tokens,
        decoded_tokens=cell.decoded_tokens,
    )


def step_caches(
    model: ModelShape, sizes: Sizes, layout: Layout, dtype: torch.dtype, normal: Normal
) -> list[Cache]:
    """Fill the caches of every layer; a layer with a sliding window keeps what it can see."""
    caches: list[Cache] = []
    for window in layer_windows(model.layer_groups):
        context, decoded = visible_tokens(sizes.context_tokens, sizes.decoded_tokens, window)
        visible = Sizes(
            prompts=sizes.prompts,
            samples=sizes.samples,
            heads=sizes.heads,
            kv_heads=sizes.kv_heads,
            head_dim=sizes.head_dim,
            context_tokens=context,
            decoded_tokens=decoded,
        )
        query = _query_shape(visible, layout, dtype)
        caches.append(attention_inputs(visible, layout, dtype, normal, query=query))
    return caches


def _query_shape(sizes: Sizes, layout: Layout, dtype: torch.dtype) -> Tensor:
    """Return a tensor that only says how queries lie, and takes no memory."""
    p, b = sizes.prompts, sizes.samples
    shape = (p * b, 1) if layout == "copies" else (p, b)
    return torch.empty((*shape, sizes.heads, sizes.head_dim), dtype=dtype, device="meta")
