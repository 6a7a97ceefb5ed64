"""Nsight Compute's output becomes bytes per call, and its failures one line."""

import json
from pathlib import Path

import pytest

from simulator.errors import MeasurementError
from simulator.evidence.measure import counters, grid
from simulator.evidence.measure.rows import COLUMNS, Card
from simulator.evidence.measure.store import Store

CARD = Card(gpu="NVIDIA H100 80GB HBM3", framework="torch", version="2.13.0")
READ, WRITTEN = counters.READ, counters.WRITTEN
SPIN = "void at::cuda::<unnamed>::spin_kernel(long)"
# Two calls: the first of two kernels, the second of one.
KERNELS = [
    (SPIN, 10, 0),
    ("flash_fwd_splitkv_kernel<Flash_fwd, 128>", 1_000_000, 2_000),
    ("flash_fwd_splitkv_combine_kernel", 3_000, 400),
    (SPIN, 10, 0),
    ("ampere_bf16_gemm", 7_000, 500),
]


def long_form(units: str = "byte") -> str:
    """A line for each metric, as ``ncu --csv`` prints, in front of it what ncu says."""
    lines = [
        "==PROF== Connected to process 4711",
        '"ID","Process ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"',
    ]
    factor = {"byte": 1, "Kbyte": 1e-3}[units]
    for index, (name, read, written) in enumerate(KERNELS):
        for metric, value in ((READ, read), (WRITTEN, written)):
            lines.append(
                f'"{index}","1","{name}","Command line profiler metrics","{metric}","{units}",'
                f'"{value * factor:,.9g}"'
            )
    return "\n".join(lines)


def wide_form() -> str:
    """A line for each kernel under a line of units, as ``--page raw`` prints."""
    lines = [f'"ID","Kernel Name","{READ}","{WRITTEN}"', '"","","byte","byte"']
    lines += [f'"{i}","{name}","{r:,}","{w:,}"' for i, (name, r, w) in enumerate(KERNELS)]
    return "\n".join(lines)


@pytest.mark.parametrize("text", [long_form(), long_form("Kbyte"), wide_form()])
def test_kernels_between_markers_are_one_call(text: str) -> None:
    """Bytes of a call's kernels are summed, the markers left out, separators and units read."""
    first, second = counters.parse(text)
    assert (first.launches, first.bytes_written) == (2, 2_400)
    assert first.bytes_read == pytest.approx(1_003_000)
    assert (second.launches, second.bytes_read, second.bytes_written) == (1, 7_000, 500)


def test_output_without_a_table_is_an_error_in_ncus_words() -> None:
    """The driver's refusal, which is what happens mostly, is passed on."""
    text = "==PROF== x\n==ERROR== ERR_NVGPUCTRPERM - The user does not have permission\n"
    with pytest.raises(MeasurementError, match="ERR_NVGPUCTRPERM"):
        counters.parse(text)


def a_program(folder: Path, body: str) -> str:
    """A program in place of ncu."""
    path = folder / "ncu"
    path.write_text(f"#!/usr/bin/env python3\nimport json, sys\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_rows_put_what_was_counted_beside_the_account(tmp_path: Path) -> None:
    """Run through a stand-in for ncu: it is asked not to touch clocks, and rows can be stored."""
    plan = grid.select(grid.default_grid(), kinds=["attention"], kernels=["standard_flash"])
    cells = counters.wanted_cells(plan)[:2]
    body = (
        "arguments = sys.argv[1:]\n"
        "clocks = arguments[arguments.index('--clock-control') + 1]\n"
        "assert clocks == 'none', clocks\n"
        "cells = json.load(open(arguments[-1]))\n"
        "assert [cell['kernel'] for cell in cells] == ['standard_flash'] * 2\n"
        f"print({long_form()!r})"
    )
    rows = list(counters.count(a_program(tmp_path, body), cells, CARD, sm_count=132, at="now"))
    assert [row["bytes_read"] for row in rows] == ["1003000", "7000"]
    assert all(set(row) <= set(COLUMNS["counters"]) for row in rows)
    # One layer of Llama-2-7B with m_c 8192, m_d 64 and b samples: K and V of every sample.
    samples = cells[0].samples
    kv_bytes = 2 * samples * (8192 + 64) * 4096 * 2
    assert float(rows[0]["account_bytes_read"]) >= kv_bytes + samples * 4096 * 2
    store = Store(tmp_path)
    for row in rows:
        store.append("counters", row)
    assert {counters.counter_key(cell) for cell in cells} <= Store(tmp_path).done


@pytest.mark.parametrize("body", ["print('==ERROR== no'); sys.exit(1)", "print('')"])
def test_a_failing_ncu_is_one_line(tmp_path: Path, body: str) -> None:
    """ncu that fails or prints nothing: an error, no rows."""
    plan = grid.select(grid.default_grid(), kinds=["attention"], kernels=["standard_flash"])
    cells = counters.wanted_cells(plan)[:1]
    with pytest.raises(MeasurementError, match="ncu"):
        list(counters.count(a_program(tmp_path, body), cells, CARD, sm_count=132, at=""))


def test_each_kernel_is_counted_once_whatever_the_modes() -> None:
    """Counters do not depend on how a kernel is launched."""
    cells = counters.wanted_cells(grid.default_grid())
    keys = [counters.counter_key(cell) for cell in cells]
    assert len(set(keys)) == len(keys)
    assert {cell.context_tokens for cell in cells} == {8192}
    # A cell goes to the child process as JSON.
    assert json.loads(json.dumps([counters.as_json(cell) for cell in cells[:3]]))
