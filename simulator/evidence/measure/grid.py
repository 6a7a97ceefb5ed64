"""The cells of a run: the default grid, a small one for the CPU, and a scenario's.

The most useful cells come first, so that an interrupted run is still useful: what no public row
settles, one stored context read again for every sample against copies; then memory bandwidth, the
paper's centre (8K of context), the shortest and longest contexts, and the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from simulator.counts.attention.registry import find_way
from simulator.errors import MeasurementError, SimulatorError, unknown
from simulator.evidence import tables
from simulator.evidence.kernels import ALL_KERNELS, EXTERNAL_KERNELS, KERNELS, Implementation
from simulator.evidence.kernels.other_libraries import LIBRARY_DTYPES
from simulator.evidence.measure.cells import (
    ELEMENTWISE_OPS,
    KINDS,
    MEMORY_TESTS,
    MODES,
    AttentionCell,
    Cell,
    ElementwiseCell,
    GemmCell,
    KernelCell,
    Kind,
    L2State,
    MemoryCell,
    Mode,
    Selection,
    StepCell,
    sizes_of,
)
from simulator.inputs.dtypes import KvDtype
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario
from simulator.inputs.setup import Setup, ask
from simulator.inputs.tree import tree_text
from simulator.inputs.workload import Workload

# Sizes and stages of a run without a scenario, whole steps and streams included.
_GRID = tables("measure/grid.toml")
_CONTEXT_STAGE, _SAMPLES_LATER = dict(_GRID["context_stages"]), dict(_GRID["samples_later"])
_GEMM_STAGE, _FLEX_STAGE = 2, 4
# Flash over one stored context (expanded keys) against copies: minutes, before everything else. By
# kernel, KV heads, context and samples.
_STORED_STAGE, _STORED = -1, set(product(*_GRID["stored"].values()))
_FLEX = "bifurcated_flex"
# Kernels of other libraries run wherever this one does.
_LIKE_OTHER_LIBRARIES = "bifurcated_flash"
_MIB = 2**20
_WORKING_SETS = tuple(_MIB * 4**power for power in range(7))  # 1 MiB to 4 GiB
_TINY = ModelShape(**_GRID["tiny"])


def default_grid(*, dtype: KvDtype = "bf16", l2: L2State = "cold") -> Selection:
    """Return the paper's regime on 7B shapes; it takes less than 25 minutes on one GPU."""
    model, step, few = load_model(_GRID["model"]), _GRID["step"], _GRID["flex"]
    cells: list[Cell] = list(_memory_cells(_WORKING_SETS))
    for kv_heads in _GRID["kv_heads"]:
        shape = model.with_kv_heads(kv_heads)
        for context, samples in product(sorted(_CONTEXT_STAGE), _GRID["samples"]):
            stage = max(_CONTEXT_STAGE[context], _SAMPLES_LATER.get(samples, 0))
            work = _workload(context, samples)
            flex = context in few["contexts"] and samples in few["samples"]
            cells += _attention_cells(shape, work, stage, flex=flex, dtype=dtype, l2=l2)
            if context in step["contexts"] and samples in step["samples"]:
                cells += _step_cells(shape, work, dtype, stage)
        cells += _layer_cells(shape, _GRID["samples"], _GEMM_STAGE, dtype=dtype, l2=l2)
    return Selection(name="default", cells=_ordered(map(_stored_first, cells)))


def _stored_first(cell: Cell) -> Cell:
    """Return a cell, in the first stage if it tells how one stored context is read again."""
    if not isinstance(cell, AttentionCell) or not cell.graph:
        return cell
    first = (cell.kernel, cell.kv_heads, cell.context_tokens, cell.samples) in _STORED
    return replace(cell, stage=_STORED_STAGE) if first else cell


def cpu_grid(*, dtype: KvDtype = "fp32", l2: L2State = "cold") -> Selection:
    """Return a few small cells of every kind, to test the harness without a GPU."""
    cells: list[Cell] = list(_memory_cells((_MIB // 16, _MIB // 4), "eager"))
    for kv_heads, context, samples in product((4, 1), (64, 256), (1, 4)):
        shape = _TINY.with_kv_heads(kv_heads)
        work = _workload(context, samples, decoded=8)
        cells += _attention_cells(shape, work, 1, flex=True, dtype=dtype, l2=l2)
        cells += _step_cells(shape, work, dtype, 1)
    cells += _layer_cells(_TINY, (1, 4), _GEMM_STAGE, "eager", dtype=dtype, l2=l2)
    return Selection(name="cpu", cells=_ordered(cell for cell in cells if not cell.graph))


def scenario_grid(
    scenario: Scenario, *, dtype: KvDtype | None = None, l2: L2State = "cold"
) -> Selection:
    """Return the cells of a scenario's models and workloads; its GPUs do not matter.

    Kernels run with the heads of one GPU of a tensor-parallel group. Cells that cannot be measured
    on one GPU are left out and named in ``skipped``.

    Parameters
    ----------
    scenario
        The scenario.
    dtype
        Format of weights, caches and activations; None for the scenario's activation format.
    l2
        L2 before a call.
    """
    cells: dict[str, Cell] = {}
    skipped: dict[str, None] = {}
    # The values of each axis that are measured first: both ends and the middle.
    middle = {
        axis: (values[0], values[len(values) // 2], values[-1])
        for axis, values in scenario.axes.items()
    }
    for point in scenario.cells():
        settings: dict[str, Any] = {
            key: value for key, value in point.items() if key not in ("model", "gpu", "kv_heads")
        }
        kv_heads: Any = point.get("kv_heads")
        try:
            model = load_model(str(point["model"]), kv_heads=kv_heads)
            setup, work = ask(model, **settings)
            find_way(setup.kernel)
        except SimulatorError as error:
            skipped[str(error)] = None
            continue
        formats = dtype or setup.activation_dtype
        stage = 1 if all(point[axis] in values for axis, values in middle.items()) else 3
        found, reasons = _scenario_cells(model, setup, work, stage, dtype=formats, l2=l2)
        skipped |= dict.fromkeys(reasons)
        for cell in found:
            cells.setdefault(cell.key, cell)
    if cells:
        cells = {cell.key: cell for cell in _memory_cells(_WORKING_SETS)} | cells
    return Selection(name=scenario.id, cells=_ordered(cells.values()), skipped=tuple(skipped))


def select(
    plan: Selection,
    *,
    kinds: Sequence[Kind] = KINDS,
    kernels: Sequence[str] = (),
    modes: Sequence[Mode] = MODES,
    query_tokens: Sequence[int] = (),
) -> Selection:
    """Select kinds of cells, kernels and modes.

    Kernels of other libraries are added only by name.

    Parameters
    ----------
    plan
        All cells.
    kinds, kernels, modes
        What to keep; no kernels means all of the plan's.
    query_tokens
        Query tokens of each sample instead of the plan's own; none keeps those.

    Raises
    ------
    MeasurementError
        If a kernel is unknown or does not take the format, or nothing is left.
    """
    for kernel in kernels:
        if kernel not in ALL_KERNELS:
            raise MeasurementError(unknown("kernel", kernel, ALL_KERNELS))
    kept = [
        cell
        for cell in _with_other_libraries(plan, kernels)
        if cell.kind in kinds
        and cell.mode in modes
        and (not kernels or not isinstance(cell, KernelCell) or cell.kernel in kernels)
    ]
    skipped = dict.fromkeys(plan.skipped)
    if query_tokens:
        several: list[Cell] = []
        for cell, tokens in product(kept, query_tokens):
            if not isinstance(cell, KernelCell):
                several.append(cell)
            elif reason := _unsupported_tokens(cell.implementation, tokens, cell.decoded_tokens):
                skipped[reason] = None
            else:
                several.append(replace(cell, query_tokens=tokens))
        kept = several
    if not kept:
        reasons = list(skipped) or ["the grid has no such cells"]
        raise MeasurementError(f"nothing to measure in {plan.name!r}: {'; '.join(reasons)}")
    return replace(plan, cells=_ordered(kept), skipped=tuple(skipped))


def _with_other_libraries(plan: Selection, kernels: Sequence[str]) -> tuple[Cell, ...]:
    """Return a plan's cells, and those of kernels of other libraries at the same points."""
    wanted = [kernel for kernel in kernels if kernel in EXTERNAL_KERNELS]
    points = [
        cell
        for cell in plan.cells
        if wanted and isinstance(cell, AttentionCell) and cell.kernel == _LIKE_OTHER_LIBRARIES
    ]
    for dtype in {cell.dtype for cell in points} - {*LIBRARY_DTYPES}:
        known = " or ".join(LIBRARY_DTYPES)
        raise MeasurementError(f"{wanted[0]} takes {known}, not {dtype}: --dtype chooses")
    others = (replace(cell, kernel=kernel) for cell in points for kernel in wanted)
    return (*plan.cells, *others)


def _unsupported_tokens(
    implementation: Implementation, query_tokens: int, decoded_tokens: int
) -> str | None:
    """Return why a kernel cannot run with a number of query tokens, None if it can."""
    if query_tokens > decoded_tokens:
        return (
            f"query_tokens = {query_tokens}: a sample of decoded_tokens = {decoded_tokens} "
            "does not hold them"
        )
    if query_tokens > 1 and not implementation.takes_several_tokens:
        return f"query_tokens = {query_tokens}: {implementation.name} takes one query token"
    return None


def unsupported_step(model: ModelShape) -> str | None:
    """Return why a whole step of a model cannot be built in plain PyTorch, None if it can."""
    if model.latent is not None:
        return f"{model.name}: the kernels have no latent (MLA) cache"
    if model.experts is not None:
        return f"{model.name}: whole steps of mixtures of experts are not built"
    return None


def _workload(context: int, samples: int, *, decoded: int = _GRID["decoded_tokens"]) -> Workload:
    """Return the workload of one point of a grid."""
    return Workload(context_tokens=context, samples=samples, decoded_tokens=decoded)


def _memory_cells(working_sets: Iterable[int], mode: Mode = "graph") -> Iterable[MemoryCell]:
    """Yield every stream over every working set."""
    for size, test in product(working_sets, MEMORY_TESTS):
        yield MemoryCell(test=test, working_set_bytes=size, dtype="fp32", mode=mode, stage=0)


def _attention_cells(
    model: ModelShape, work: Workload, stage: int, *, flex: bool, ranks: int = 1, **how: Any
) -> Iterable[AttentionCell]:
    """Yield every kernel in both modes at one point, with the heads of one of several ranks."""
    for (kernel, known), mode in product(KERNELS.items(), MODES):
        fits = work.query_tokens == 1 or known.takes_several_tokens
        if fits and (flex or kernel != _FLEX):
            yield AttentionCell(
                kernel=kernel,
                heads=model.heads // ranks,
                kv_heads=max(1, model.kv_heads // ranks),
                head_dim=model.head_dim,
                mode=mode,
                stage=max(stage, _FLEX_STAGE) if kernel == _FLEX else stage,
                **sizes_of(work),
                **how,
            )


def _step_cells(
    model: ModelShape, work: Workload, dtype: KvDtype, stage: int
) -> Iterable[StepCell]:
    """Yield whole steps in both modes at one point."""
    for kernel, mode in product(_GRID["step"]["kernels"], MODES):
        yield StepCell(
            model=model, kernel=kernel, dtype=dtype, mode=mode, stage=stage, **sizes_of(work)
        )


def _layer_cells(
    model: ModelShape, tokens: Iterable[int], stage: int, mode: Mode = "graph", **how: Any
) -> Iterable[Cell]:
    """Yield a layer's matrix products and elementwise kernels at decode sizes."""
    d, inner, query = model.hidden_size, model.intermediate_size, model.heads * model.head_dim
    key = model.kv_heads * model.head_dim
    matrices = dict.fromkeys(
        [(query + 2 * key, d), (d, query), (inner, d), (d, inner), (model.vocab_size, d)]
    )
    for m in tokens:
        for n, k in matrices:
            if n and k:
                yield GemmCell(m=m, n=n, k=k, mode=mode, stage=stage, **how)
        for width, op, way in product((d, inner), ELEMENTWISE_OPS, MODES):
            if width:
                yield ElementwiseCell(op=op, rows=m, width=width, mode=way, stage=stage, **how)


def _scenario_cells(
    model: ModelShape, setup: Setup, work: Workload, stage: int, **how: Any
) -> tuple[list[Cell], list[str]]:
    """Return the cells of one point of a scenario, and why others are left out."""
    ranks = setup.tensor_parallel
    reason = _unsupported_kernels(model, work, ranks)
    if reason:
        return [], [reason]
    first = stage == 1
    cells: list[Cell] = list(_attention_cells(model, work, stage, flex=first, ranks=ranks, **how))
    tokens = work.prompts * work.samples * work.query_tokens
    cells += _layer_cells(model, (tokens,), max(stage, _GEMM_STAGE), **how)
    flex = _unsupported_tokens(KERNELS[_FLEX], work.query_tokens, work.decoded_tokens)
    reasons = [flex] if flex and first else []
    reason = unsupported_step(model)
    if ranks > 1:
        many = f"{model.name} at tensor_parallel = {ranks} needs more than one GPU"
        reason = f"{many}; its kernels run with one rank's heads"
    if reason:
        return cells, [*reasons, f"whole steps: {reason}"]
    return [*cells, *_step_cells(model, work, how["dtype"], stage)], reasons


def _unsupported_kernels(model: ModelShape, work: Workload, ranks: int) -> str | None:
    """Return why no kernel can be measured at a point, None if all can."""
    if len(work.tree) > 1:
        return f"tree = {tree_text(work.tree)}: kernels are measured over one shared level"
    if work.decoded_tokens < 1:
        return "decoded_tokens = 0: a step holds at least the token it processes"
    if model.latent is not None:
        return unsupported_step(model)
    if model.heads % ranks:
        return f"tensor_parallel = {ranks} does not divide {model.name}'s heads"
    kernel = KERNELS[_LIKE_OTHER_LIBRARIES]
    return _unsupported_tokens(kernel, work.query_tokens, work.decoded_tokens)


def _ordered(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Drop repeats, and sort by stage and then by kind."""
    distinct = {cell.key: cell for cell in cells}
    return tuple(sorted(distinct.values(), key=lambda cell: (cell.stage, KINDS.index(cell.kind))))
