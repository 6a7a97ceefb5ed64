"""Run a plan: predict, prepare, check, time, write a row; continue after errors."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from simulator.errors import MeasurementError, SimulatorError
from simulator.evidence.measure.cells import Cell, KernelCell, Selection, StepCell
from simulator.evidence.measure.device import Device, Stopwatch, is_out_of_memory
from simulator.evidence.measure.predict import Prediction, Repeats, predict, wall_s
from simulator.evidence.measure.prepare import Prepared, prepare
from simulator.evidence.measure.rows import Outcome, SensorReading, row_of
from simulator.evidence.measure.steps import Steps
from simulator.evidence.measure.store import Environment, Store, now
from simulator.timing.constants import Rates
from simulator.units import format_gib

Planned = tuple[Cell, Prediction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a run.

    Attributes
    ----------
    skip_oom
        Skip cells that should not fit in memory.
    time_limit_s
        Start no group after this time. [s]
    """

    timing: Repeats = field(default_factory=Repeats)
    skip_oom: bool = False
    time_limit_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run.

    Attributes
    ----------
    done, total
        Cells with a row, those of earlier runs included, and all cells.
    seconds_left
        An estimate, corrected by the time that the groups so far have taken. [s]
    group
        The group that was measured last.
    stopped
        Why the run ends before the last cell, empty otherwise.
    """

    done: int
    total: int
    seconds_left: float
    group: str = ""
    stopped: str = ""


# A cell is skipped after this many process deaths in it: the first may have another cause.
_DEATHS = 2


def run(
    plan: Selection,
    device: Device,
    store: Store,
    *,
    gpu: Rates | None,
    settings: Settings,
    journal: Environment | None = None,
) -> Iterator[Progress]:
    """Measure every cell of a plan without a row, and yield after every group.

    Parameters
    ----------
    plan, device, store
        The cells, the device, and the store of the rows.
    gpu
        Rates of the card, for the remaining time and the repeats; None for an unknown card.
    settings
        How long to time cells, and when to stop.
    journal
        With a journal, a cell in which a process died is measured alone, and skipped after a second
        death, so that the cells after it can be measured.

    Raises
    ------
    MeasurementError
        If the device is unusable after an error; the rows so far are safe.
    """
    worker = _Worker(device, store, settings, journal)
    groups: list[tuple[list[Planned], float]] = []
    limits = {"l2_bytes": device.l2_bytes, "headroom_bytes": device.headroom_bytes}
    for cells in plan.groups:
        planned = [
            (cell, predict(cell, gpu=gpu, **limits)) for cell in cells if cell.key not in store.done
        ]
        if planned:
            groups.append((planned, wall_s(planned, settings.timing)))
    total = len(plan.cells)
    done = total - sum(len(cells) for cells, _ in groups)
    left = sum(guess for _, guess in groups)
    start, guessed = time.monotonic(), 0.0
    yield Progress(done=done, total=total, seconds_left=left)
    if groups:
        device.warm_up()
    for planned, guess in groups:
        taken = time.monotonic() - start
        if settings.time_limit_s is not None and taken >= settings.time_limit_s:
            yield Progress(done=done, total=total, seconds_left=left, stopped="time limit reached")
            return
        with torch.no_grad():
            worker.measure(planned)
        done, left, guessed = done + len(planned), left - guess, guessed + guess
        pace = (time.monotonic() - start) / guessed if guessed else 1.0
        yield Progress(
            done=done, total=total, seconds_left=max(0.0, left * pace), group=planned[0][0].group
        )


class _Worker:
    """Measures groups, and keeps the weights and the last reading between them."""

    def __init__(
        self, device: Device, store: Store, settings: Settings, journal: Environment | None
    ) -> None:
        self._device, self._store, self._settings = device, store, settings
        self._journal = journal
        self._steps = Steps(device)
        self._reading: SensorReading | None = None
        # The cell whose code is running, to blame if the device breaks.
        self._at: Planned | None = None

    def measure(self, planned: Sequence[Planned]) -> None:
        """Give every cell of a group its row."""
        self._steps.forget(keep=planned[0][0])
        self._device.release()
        room = self._device.free_bytes() + self._steps.loaded_bytes
        deaths = {cell.key: self._journal.deaths(cell.key) for cell, _ in planned if self._journal}
        fitting = [
            each for each in planned if each[1].memory_bytes <= room and not deaths.get(each[0].key)
        ]
        for batch in together(fitting, room):
            self._try(batch)
        for each in planned:
            if each in fitting:
                continue
            if deaths.get(each[0].key, 0) >= _DEATHS:
                note = "not tried: the process died in it before, with others and alone"
                self._write_failure(each, Outcome(status="error", note=note))
            elif self._settings.skip_oom and each[1].memory_bytes > room:
                needed = format_gib(each[1].memory_bytes)
                note = f"predicted: needs {needed}, {format_gib(room)} free"
                self._write_failure(each, Outcome(status="oom", note=note))
            else:
                self._try([each])

    def _try(self, batch: Sequence[Planned]) -> None:
        """Measure cells together, or each alone if that fails; a cell failing alone gets a row."""
        self._device.release()  # of the batch before
        if self._journal is not None:
            self._journal.begin([cell.key for cell, _ in batch])
        failure = self._attempt(batch)
        if failure is None:
            return
        self._recover(failure, batch)
        if len(batch) == 1:
            self._write_failure(batch[0], failure)
            return
        for each in batch:
            if each[0].key not in self._store.done:
                self._try([each])

    def _attempt(self, batch: Sequence[Planned]) -> Outcome | None:
        """Measure cells together, or return the failure."""
        self._at = None
        try:
            self._measure(batch)
        except SimulatorError as problem:
            if isinstance(problem, MeasurementError):
                raise
            return Outcome(status="error", note=str(problem))
        except Exception as problem:  # noqa: BLE001  (a row says what; the run goes on)
            if is_out_of_memory(problem):
                return Outcome(status="oom", note=f"seen: {problem}")
            return Outcome(status="error", note=_said(problem))
        return None

    def _recover(self, failure: Outcome, batch: Sequence[Planned]) -> None:
        """Free the memory of an attempt; stop the run if the device is unusable in this process."""
        try:
            self._device.release(thorough=True)
            self._device.check_usable()
        except RuntimeError:
            culprit = self._at or batch[0]
            note = f"broke the device: {failure.note}"
            self._write_failure(culprit, replace(failure, note=note))
            raise MeasurementError(
                f"{culprit[0].key}: {failure.note.splitlines()[0]}; the device is unusable in "
                "this process, its row says so; run the same command again to go on"
            ) from None

    def _measure(self, batch: Sequence[Planned]) -> None:
        """Prepare, check and time cells interleaved, and write their rows."""
        timing = self._settings.timing
        largest = max(prediction.workspace_bytes for _, prediction in batch)
        needed = inputs_bytes(batch) + largest - self._steps.loaded_bytes
        self._device.check_room(needed)
        before = self._reading or self._device.reading()
        prepared = prepare(
            [cell for cell, _ in batch], self._device, self._steps, least_pass_s=timing.least_pass_s
        )
        checked: list[tuple[Prepared, Planned, float]] = []
        for each, planned in zip(prepared, batch, strict=True):
            self._at = planned
            checked.append((each, planned, each.check()))
        right = [(each, planned) for each, planned, error in checked if error <= each.tolerance]
        taken = iter(time_interleaved([self._watched(*pair) for pair in right], timing))
        self._at = None
        self._reading = self._device.reading()
        at = now()
        for each, (cell, prediction), error in checked:
            outcome = Outcome(
                status="ok",
                before=before,
                after=self._reading,
                measured_at=at,
                relative_error=error,
                predicted_memory_bytes=prediction.memory_bytes,
                l2_state=each.l2_state,
                note=each.note,
            )
            if error <= each.tolerance:
                seconds = [value / each.calls for value in next(taken)]
                outcome = replace(outcome, seconds=seconds, calls_per_repeat=each.calls)
            else:
                note = f"not timed: relative error above {each.tolerance:g}"
                outcome = replace(outcome, status="wrong", note=note)
            self._store.append(cell.kind, row_of(cell, self._device.card, outcome))

    def _watched(self, prepared: Prepared, planned: Planned) -> Stopwatch:
        """Return a cell's stopwatch, which also records that the cell is running."""
        self._at = planned
        watch = self._device.stopwatch(prepared.one_pass, prepared.cell.mode)

        def run() -> float:
            self._at = planned
            return watch()

        return run

    def _write_failure(self, planned: Planned, failure: Outcome) -> None:
        """Write the row of a cell that has no time."""
        cell, prediction = planned
        needed = prediction.memory_bytes
        outcome = replace(failure, predicted_memory_bytes=needed, measured_at=now())
        self._store.append(cell.kind, row_of(cell, self._device.card, outcome))


def time_interleaved(stopwatches: Sequence[Stopwatch], timing: Repeats) -> list[list[float]]:
    """Time several things in turn, round after round, so that drift affects all of them equally.

    Parameters
    ----------
    stopwatches
        Functions that run their call once and return its seconds.

    Returns
    -------
    list
        The seconds of every counted repeat, for each stopwatch. One that has used up its share of
        the time skips the remaining rounds, but none stops before ``timing.least`` repeats.
    """
    for _ in range(timing.warm_up):
        for stopwatch in stopwatches:
            stopwatch()
    taken: list[list[float]] = [[] for _ in stopwatches]
    for _ in range(timing.most):
        due = [
            (stopwatch, seconds)
            for stopwatch, seconds in zip(stopwatches, taken, strict=True)
            if len(seconds) < timing.least or sum(seconds) < timing.budget_s
        ]
        for stopwatch, seconds in due:
            seconds.append(stopwatch())
    return taken


def together(planned: Sequence[Planned], room: float) -> list[list[Planned]]:
    """Split the cells of a group, in order, into as few batches as fit in memory.

    Cells of one layout share their inputs, and only one call's workspace is alive at a time.
    """
    batches: list[list[Planned]] = []
    for each in planned:
        grown = [*batches[-1], each] if batches else [each]
        # In the worst case, each graph keeps its own workspace.
        workspace = sum(prediction.workspace_bytes for _, prediction in grown)
        if batches and inputs_bytes(grown) + workspace <= room:
            batches[-1] = grown
        else:
            batches.append([each])
    return batches


def inputs_bytes(planned: Sequence[Planned]) -> float:
    """Return the bytes of all inputs of one batch; those of the same layout count once."""
    by_layout: dict[str, float] = {}
    weights = 0.0
    for cell, prediction in planned:
        layout, own = "one", 0.0
        if isinstance(cell, KernelCell):
            layout = cell.implementation.layout
        if isinstance(cell, StepCell):
            own = cell.weights_bytes
            weights = max(weights, own)
        by_layout[layout] = max(by_layout.get(layout, 0.0), prediction.input_bytes - own)
    return sum(by_layout.values()) + weights


def _said(problem: BaseException) -> str:
    """Describe an error, its cause first: a failed capture usually has another error as cause."""
    text = f"{type(problem).__name__}: {str(problem).strip() or 'no words'}"
    before = problem.__cause__ or (None if problem.__suppress_context__ else problem.__context__)
    return text if before is None else f"{_said(before)}; then {text}"
