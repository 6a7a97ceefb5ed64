"""Which cells of a group are measured at the same time: as many as fit in memory."""

from collections.abc import Sequence

from simulator.evidence.measure.cells import KNOWN_KERNELS, AttentionCell, Cell, StepCell
from simulator.evidence.measure.footprint import weights_bytes
from simulator.evidence.measure.predict import Prediction

Planned = tuple[Cell, Prediction]


def together(planned: Sequence[Planned], room: float) -> list[list[Planned]]:
    """Share cells of a group out to batches that fit in memory, as few as possible in order.

    Cells of one layout share their inputs, and only one call's workspace is alive at a time.
    """
    batches: list[list[Planned]] = []
    for each in planned:
        grown = [*batches[-1], each] if batches else [each]
        # Graphs keep their own workspace each, at worst.
        workspace = sum(prediction.workspace_bytes for _, prediction in grown)
        if batches and inputs_bytes(grown) + workspace <= room:
            batches[-1] = grown
        else:
            batches.append([each])
    return batches


def inputs_bytes(planned: Sequence[Planned]) -> float:
    """Return the bytes of all inputs of cells in one batch; those of one layout count once."""
    by_layout: dict[str, float] = {}
    weights = 0.0
    for cell, prediction in planned:
        layout = "one"
        if isinstance(cell, AttentionCell | StepCell):
            layout = KNOWN_KERNELS[cell.kernel].layout
        own = 0.0
        if isinstance(cell, StepCell):
            own = weights_bytes(cell)
            weights = max(weights, own)
        by_layout[layout] = max(by_layout.get(layout, 0.0), prediction.input_bytes - own)
    return sum(by_layout.values()) + weights
