"""From `measure` to `calibrate` and `validate`: rows as a GPU would give them come back as it is.

No GPU here: times are made with constants that the shipped profile does not have, cell by cell,
through the prediction that a dry run shows. The rows then go the way a user's rows go.
"""

import csv
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest

from simulator.evidence.fit.calibrate import Calibration, calibrate
from simulator.evidence.fit.solver import with_constants
from simulator.evidence.measure.cells import Cell, ElementwiseCell, GemmCell, MemoryCell
from simulator.evidence.measure.grid import default_grid
from simulator.evidence.measure.predict import CUDA_HEADROOM_BYTES, predict
from simulator.evidence.measure.rows import COLUMNS, FILES, Machine, Outcome, row_of
from simulator.evidence.predict.validate import Validation, summarise, validate
from simulator.evidence.rows.reading import Measurements, load
from simulator.inputs.hardware import load_hardware
from simulator.timing.constants import rates

CARD = "h100-sxm"
NOISE = 0.02
TRUTH = {
    "gemm_launch_us": 3.1,
    "gemm_bandwidth_fraction": 0.83,
    "attention_launch_us": 6.5,
    "attention_bandwidth_fraction": 0.85,
    "elementwise_launch_us": 1.9,
    "elementwise_bandwidth_fraction": 0.75,
    "keeping_up": 0.8,
    "host_us_per_launch": 12.0,
    "eager_launch_us": 1.0,
}


# A quarter of the default grid says as much; where only a launch is asked for, one context does.
CONTEXTS, SAMPLES = (1024, 8192, 32768), (1, 16, 64, 256)


def _measured(
    folder: Path, truth: Mapping[str, float], contexts: Collection[int] = CONTEXTS
) -> Measurements:
    """Write rows of a card with these constants, 2 % off, and read them."""
    bare = load_hardware(CARD).but(fitted={})
    card = rates(with_constants(bare, truth))
    random = np.random.default_rng(7)
    rows: dict[str, list[dict[str, object]]] = {}

    def wanted(cell: Cell) -> bool:
        return isinstance(cell, MemoryCell | GemmCell | ElementwiseCell) or (
            cell.context_tokens in contexts and cell.samples in SAMPLES
        )

    for cell in filter(wanted, default_grid().cells):
        expected = predict(
            cell, gpu=card, l2_bytes=bare.l2_bytes, headroom_bytes=CUDA_HEADROOM_BYTES
        )
        assert expected.seconds is not None
        assert not bare.memory_carried
        outcome = Outcome(status="oom")
        if expected.memory_bytes <= bare.memory_bytes:
            seconds = expected.seconds * float(np.exp(random.normal(0, NOISE)))
            outcome = Outcome(status="ok", seconds=[seconds] * 5)
        named = Machine(gpu="NVIDIA H100 80GB HBM3", framework="torch", version="2.11.0")
        rows.setdefault(cell.kind, []).append(row_of(cell, named, outcome))
    for kind, listed in rows.items():
        with (folder / FILES[kind]).open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS[kind])
            writer.writeheader()
            writer.writerows(listed)
    return load([folder])


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Measurements:
    """Rows of a card whose constants are not those of the profile."""
    return _measured(tmp_path_factory.mktemp("measured"), TRUTH)


@pytest.fixture(scope="module")
def calibration(measured: Measurements) -> Calibration:
    """What those rows say."""
    return calibrate(measured, load_hardware(CARD))


@pytest.fixture(scope="module")
def shipped(measured: Measurements) -> Validation:
    """What the shipped constants predict of those rows."""
    return validate(measured)


def test_only_what_ran_out_of_memory_is_refused(measured: Measurements) -> None:
    """Rows of our own measuring are read without a complaint but those that have no time."""
    assert measured.refused
    assert {refusal.reason for refusal in measured.refused} == {"status is oom: nothing was timed"}


def test_every_timed_call_can_be_predicted(measured: Measurements, shipped: Validation) -> None:
    """Kernels, products, elementwise kernels and whole steps: only a bandwidth is no call."""
    result = summarise(shipped, measured)
    assert list(result["skipped_reasons"]) == ["bandwidth rows measure a rate, not a call"]
    assert result["oom_correct"] == result["oom_total"] > 0


def test_the_card_is_found_again(calibration: Calibration) -> None:
    """Each constant comes out within three of its stated errors, or 3 %."""
    found = calibration.values()
    for name, true in TRUTH.items():
        value, stderr, _ = found[name]
        tolerance = max(3 * stderr, 0.03 * true)
        if name == "eager_launch_us":
            # It is what is left of a launch after the constants of the stages before: of about
            # 3 us in all, and their errors of 1 to 3 % are not in its own.
            tolerance = 0.2
        assert abs(value - true) <= tolerance, name


def test_what_was_calibrated_predicts_the_rows(
    measured: Measurements, calibration: Calibration, shipped: Validation
) -> None:
    """With the card's own constants errors are those of the noise, whatever the kind of row."""
    result = summarise(validate(measured, gpu=calibration.profile), measured)
    before = summarise(shipped, measured)
    kinds = [group for group in result["groups"] if group["by"] == "kind"]
    assert {group["value"] for group in kinds} == {
        "shared_prefix_attention",
        "decode_step",
        "gemm",
        "elementwise",
    }
    for group in kinds:
        # The median of |2 % noise| is 1.35 %; constants that no row tells keep the carried values.
        assert group["median_ape"] < 1.5 * NOISE, group
    assert result["median_ape"] < before["median_ape"] / 3


def test_a_host_that_is_never_waited_for_is_only_bounded(tmp_path: Path) -> None:
    """Where no step waits for the host, its time is reported as a bound, not as a figure."""
    quick = {**TRUTH, "host_us_per_launch": 0.6}
    rows = _measured(tmp_path, quick, contexts=[8192])
    fits = calibrate(rows, load_hardware(CARD)).fits
    part = next(part for part in fits if "host_us_per_launch" in part.fitted.constants)
    assert part.fitted.bounded == ("host_us_per_launch",)


def test_the_same_kernel_has_one_name_everywhere(shipped: Validation) -> None:
    """Rows of one size differ by kernel, and their predictions do."""
    rows = shipped.rows
    chosen = rows[
        (rows["kind"] == "shared_prefix_attention")
        & (rows["timing"] == "graph")
        & (rows["prefix_len"] == 8192)
        & (rows["samples"] == 16)
        & (rows["kv_heads"] == 32)
    ].set_index("implementation")["predicted_us"]
    # Sixteen copies of the context are read, or one.
    assert chosen["standard_flash"] > 5 * chosen["bifurcated_flash"]
    assert chosen["standard_rebuilt"] > 2 * chosen["standard_flash"]
