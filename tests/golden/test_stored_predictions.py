"""Did a prediction change? How accurate predictions are is another question: docs/accuracy.md."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _predictions() -> ModuleType:
    """Load predictions.py, which lies beside this file and is no package's."""
    path = Path(__file__).with_name("predictions.py")
    spec = importlib.util.spec_from_file_location("stored_predictions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


predictions = _predictions()


def test_no_prediction_changed() -> None:
    """Every stored prediction is what the simulator answers today, to six digits.

    A change that is meant: run ``make predictions`` and have its diff reviewed (CONTRIBUTING.md).
    """
    now = [predictions.predicted(point) for point in predictions.points()]
    lines = predictions.report(predictions.stored(), now)
    if lines:
        told = "\n".join(lines)
        reason = f"{told}\nif it is meant to: make predictions, and review the diff"
        pytest.fail(reason, pytrace=False)


def test_the_grid_covers_what_can_be_asked() -> None:
    """Some hundred questions: cards with constants of their own and without, every way to run."""
    rows = predictions.stored()
    assert 300 <= len(rows) <= 600
    assert len({tuple(row[name] for name in predictions.SETTINGS) for row in rows}) == len(rows)
    for name, count in {"gpu": 8, "model": 8, "kernel": 4, "execution": 3, "kv_layout": 3}.items():
        assert len({row[name] for row in rows}) >= count, name
    assert {row["bound"] for row in rows} >= {"memory", "launch"}


def test_a_change_is_seen_and_placed() -> None:
    """A time that grew by 3 % and a new roof are reported with group, size and question."""
    before = predictions.stored()
    after = [dict(row) for row in before]
    index = next(i for i, row in enumerate(before) if row["gpu"] == "l40s")
    row = after[index]
    row["step_ms"] = f"{float(row['step_ms']) * 1.03:.8g}"
    row["bound"] = "link"
    told = "\n".join(predictions.report(before, after))
    assert f"1 of {len(before)} predictions changed" in told
    assert "step_ms, gpu l40s: 1 of" in told
    assert "+3.00%" in told
    assert "-> link" in told
    assert "bytes," not in told
    assert "gpu h100-sxm" not in told


def test_points_that_come_and_go_are_counted() -> None:
    """A question that is no longer asked, or newly asked, is no silent change."""
    before = predictions.stored()
    assert predictions.report(before, before) == []
    assert predictions.report(before[1:], before) == ["1 points are new"]
    assert predictions.report(before, before[2:]) == ["2 points are gone"]
