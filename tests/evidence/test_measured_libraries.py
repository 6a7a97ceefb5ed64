"""Rows of other libraries' kernels: predicted by validate, and kept out of PyTorch's constants."""

import csv
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import pytest

from simulator.evidence.fit.calibrate import calibrate
from simulator.evidence.measure.cells import AttentionCell
from simulator.evidence.measure.predict import predict
from simulator.evidence.measure.rows import COLUMNS, FILES, Machine, Outcome, row_of
from simulator.evidence.predict.validate import summarise, validate
from simulator.evidence.rows.reading import Measurements, load
from simulator.inputs.hardware import load_hardware
from simulator.timing.constants import rates

CARD = "h100-sxm"
OURS, THEIRS = "bifurcated_flash", ("flashinfer_cascade", "vllm_cascade")


def measured(
    folder: Path, kernels: Sequence[str], *, slower: float = 3.0, query_tokens: int = 1
) -> Measurements:
    """Rows as the shipped constants predict them, other libraries' so many times slower."""
    card = rates(load_hardware(CARD))
    folder.mkdir()
    with (folder / FILES["attention"]).open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS["attention"])
        writer.writeheader()
        for kernel, context, samples in product(kernels, (1024, 4096, 8192, 32768), (1, 16, 256)):
            cell = AttentionCell(
                kernel=kernel,
                heads=32,
                kv_heads=8,
                head_dim=128,
                context_tokens=context,
                decoded_tokens=64,
                samples=samples,
                query_tokens=query_tokens,
            )
            seconds = predict(cell, gpu=card, l2_bytes=card.gpu.l2_bytes).seconds
            assert seconds is not None
            seconds *= slower if cell.kernel in THEIRS else 1.0
            named = Machine(gpu="NVIDIA H100 80GB HBM3", framework="torch", version="2.11.0")
            outcome = Outcome(status="ok", seconds=[seconds] * 5, note="plan not timed")
            writer.writerow(row_of(cell, named, outcome))
    return load([folder])


@pytest.mark.parametrize("tokens", [1, 8])
def test_rows_say_how_many_query_tokens_they_have(tmp_path: Path, tokens: int) -> None:
    """Each row is predicted with its own; rows of older versions, without the column, with one."""
    table = measured(tmp_path / "rows", [OURS], query_tokens=tokens)
    rows = validate(table).rows
    assert (rows["predicted_us"] / rows["measured_us"]).to_numpy() == pytest.approx(1, rel=1e-4)
    (path,) = (tmp_path / "rows").glob("*.csv")
    with path.open(newline="") as file:
        older = [
            {k: v for k, v in row.items() if k != "query_tokens"} for row in csv.DictReader(file)
        ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(older[0]))
        writer.writeheader()
        writer.writerows(older)
    ratio = validate(load([tmp_path / "rows"])).rows.eval("predicted_us / measured_us")
    assert (ratio.min() < 0.9) if tokens > 1 else (ratio.min() > 0.999)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Measurements:
    """Rows of our kernel and of both libraries'."""
    return measured(tmp_path_factory.mktemp("all") / "rows", [OURS, *THEIRS])


def test_their_rows_name_the_library(every: Measurements) -> None:
    """Framework and version are the library's, not PyTorch's: versions differ in speed."""
    table = every.tables["shared_prefix_attention"]
    found = table.groupby("implementation")["framework"].unique().str.join(" ").to_dict()
    assert found == {OURS: "torch", "flashinfer_cascade": "flashinfer", "vllm_cascade": "vllm"}


def test_validate_predicts_them(every: Measurements) -> None:
    """None is skipped; what took three times the account's time is said to be predicted too low."""
    result = validate(every)
    assert summarise(result, every)["skipped_reasons"] == {}
    rows = result.rows
    for name in THEIRS:
        theirs = rows[rows["implementation"] == name]
        assert len(theirs) == len(rows) / 3
        ratio = theirs["predicted_us"] / theirs["measured_us"]
        # With the constants that the library's own decode rows have, where there are any.
        assert (ratio < 0.7).mean() > 0.9


def test_calibrate_leaves_them_out_and_says_so(every: Measurements, tmp_path: Path) -> None:
    """PyTorch's constants are the same with and without them."""
    card = load_hardware(CARD)
    with_theirs, without = calibrate(every, card), calibrate(measured(tmp_path / "x", [OURS]), card)
    assert with_theirs.values() == without.values()
    assert not without.left_out
    count = len(every.tables["shared_prefix_attention"]) * 2 // 3
    said = f"shared_prefix_attention: {count} rows are of other libraries' kernels"
    assert with_theirs.left_out == [said]
