"""sweep: the grid of a scenario or a question to CSV or parquet."""

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.cli import options as opt
from simulator.cli.output import CSV_FLOAT, bar, check_parquet, csv_cell, say
from simulator.cli.question import Named, scenario_of, with_asked
from simulator.errors import OutputError
from simulator.numeric import LARGEST_EXACT
from simulator.resources import atomic_path

if TYPE_CHECKING:
    import pandas as pd

    from simulator.answers.sweep import Sweep

SUFFIXES = (".csv", ".parquet")


@with_asked(
    opt.gpus("GPU, as often as you like. Default: the scenario's, or h100-sxm."),
    opt.of_answer("output", opt.FILE, "File to write: .csv or .parquet. Default: stdout."),
    opt.of_answer("dry_run", {}, "Say how many points there are, and stop.", default=False),
    *opt.LOAD,
)
def _sweep(
    question: Named, *, gpu: Sequence[str] | None, output: Path | None, dry_run: bool, **load: Any
) -> None:
    from simulator.answers.sweep import prepare_sweep
    from simulator.views.text import plural, sweep_view

    if output is not None:
        if output.suffix.lower() not in SUFFIXES:
            raise OutputError(f"cannot write {output}: a sweep goes to {' or '.join(SUFFIXES)}")
        check_parquet(output)
    name, found = question
    asked_for, settings = scenario_of(name, found, gpus=opt.names_in(gpu))
    grid = prepare_sweep(asked_for, **load, **settings)
    *told, size = sweep_view(grid).split("\n")
    for line in told:
        say(line)
    if dry_run:
        say(size)
        return
    with _stoppable(), _progress(grid) as blocks:
        if output is None:
            _write_csv(blocks, None)
            return
        with atomic_path(output) as temporary:
            parquet = output.suffix.lower() == ".parquet"
            (_write_parquet if parquet else _write_csv)(blocks, temporary)
    say(f"wrote {plural(grid.points, 'point')} to {output}")


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn a termination signal into an exit, so that the unfinished file is removed."""

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write_csv(blocks: Iterator[dict[str, Any]], path: Path | None) -> None:
    """Write blocks as CSV, one at a time, in the same form as every other answer."""
    with (
        nullcontext(sys.stdout)
        if path is None
        else path.open("w", encoding="utf-8", newline="") as stream
    ):
        for number, block in enumerate(blocks):
            frame = _csv_frame(block)
            frame.to_csv(stream, index=False, header=number == 0, float_format=CSV_FLOAT)


def _csv_frame(block: dict[str, Any]) -> "pd.DataFrame":
    """Convert a block's whole numbers to integers, its booleans to JSON's words, and names."""
    from simulator.answers.sweep import block_frame

    texts = {name: csv_cell(value) for name, value in block.items() if isinstance(value, str)}
    frame = block_frame(block | texts)
    for name, values in frame.select_dtypes("float").items():
        if ((values % 1 == 0) & (values.abs() <= LARGEST_EXACT)).all():
            frame[name] = values.astype("int64")
    for name, values in frame.select_dtypes("bool").items():
        frame[name] = values.map({True: "true", False: "false"})
    return frame


def _write_parquet(blocks: Iterator[dict[str, Any]], path: Path) -> None:
    """Write blocks as row groups of one parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from simulator.answers.sweep import block_frame

    writer = None
    try:
        for block in blocks:
            table = pa.Table.from_pandas(block_frame(block), preserve_index=False)
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _progress(grid: "Sweep") -> Iterator[Iterator[dict[str, Any]]]:
    """Yield the blocks of a sweep, with a progress bar on stderr if it is a terminal."""
    if not sys.stderr.isatty():
        yield grid.blocks()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    with bar(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as shown:
        task = shown.add_task("points", total=grid.points)

        def advancing() -> Iterator[dict[str, Any]]:
            for block in grid.blocks():
                yield block
                shown.advance(task, len(block["speedup"]))

        yield advancing()
