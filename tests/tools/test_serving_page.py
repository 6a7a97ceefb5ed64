"""The page of errors under load."""

import numpy as np
import pandas as pd
import pytest

from simulator.evidence.predict.validate import validate
from simulator.evidence.rows.reading import Measurements, load
from tools import serving

LENGTHS = {"input_len": 1024, "output_len": 1024, "tensor_parallel": 8, "weights_dtype": "fp8"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return rows of two engines, models and cards; times are known shares of the prediction."""
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    rows = [
        {"gpu": gpu, "engine": engine, "model": model, "concurrency": users, **LENGTHS}
        for gpu in ("h100-sxm", "h200-sxm")
        for engine in ("vllm", "sglang")
        for model in ("llama-3.1-70b", "llama-3.1-8b")
        for users in (1, 2, 4, 8, 16, 32, 64, 128)
    ]
    frame = pd.DataFrame(rows).assign(
        tpot_ms=1000.0, ttft_ms=1000.0, licence="Apache-2.0", **{"class": "clean"}
    )
    frame.to_csv(path, index=False)
    table = load([path]).tables["serving"]
    times = validate(Measurements({"serving": table})).rows.set_index("line")["predicted_tpot_ms"]
    # Half again as long as predicted for one model on one card, a tenth longer elsewhere.
    slow = (table["gpu"] == "h200-sxm") & (table["model"] == "llama-3.1-8b")
    measured = times[table["line"]].to_numpy() * np.where(slow, 1.5, 1.1)
    return table.assign(tpot_ms=measured, time_s=measured / 1e3)


def test_the_page_has_the_errors_of_each_cell(table: pd.DataFrame) -> None:
    """1 / 1.1 - 1 is -9.1 %, 1 / 1.5 - 1 is -33.3 %; only the latter is poor."""
    text = serving.text(table, "2026-01-01")
    assert "| h100-sxm vllm llama-3.1-70b fp8 | 8 | 9.1 % | 9.1 % | -9.1 % |" in text
    poor = text.partition("## Poor cells")[2].partition("##")[0]
    assert poor.count("\n* ") == 2  # both engines
    assert "h200-sxm vllm llama-3.1-8b fp8** (8 rows, median 33.3 %" in poor
    assert "h100-sxm" not in poor


def test_what_is_left_out_is_said(table: pd.DataFrame) -> None:
    """Two rows with drafts, of one cell; the page counts the other 62."""
    drafts = table.assign(speculative=(table["model"] == "llama-3.1-8b") & (table["line"] < 12))
    text = serving.text(drafts.astype({"speculative": int}), "2026-01-01")
    count = int(drafts["speculative"].sum())
    assert f"from {64 - count} runs" in text
    assert f"Left out: {count} rows of h100-sxm vllm llama-3.1-8b fp8: speculative" in text


def test_concurrency_falls_into_bins_with_their_upper_edge(table: pd.DataFrame) -> None:
    """Eight combinations: 1, 2 and 4 users are up to 4; 128 are not over 128."""
    rows = validate(Measurements({"serving": table})).rows
    bins = serving.binned(rows, rows["concurrency"], serving.CONCURRENCY)
    assert {name: len(part) for name, part in bins} == {
        "up to 4": 24,
        **{f"up to {users}": 8 for users in (8, 16, 32, 64, 128)},
        "over 128": 0,
    }


def test_a_constant_time_is_found_in_rows_that_were_left_out() -> None:
    """2 ms a step are missing everywhere: the other model's rows tell it."""
    predicted = np.array([10.0, 20.0, 30.0, 40.0])
    rows = pd.DataFrame(
        {
            "model": ["a", "a", "b", "b"],
            "predicted_tpot_ms": predicted,
            "tpot_ms": predicted + 2,
            "step": 1.0,
        }
    )
    assert serving.left_out(rows, "model", ("step",)).abs().max() < 1e-6
    assert serving.terms(rows, ("step",)) == pytest.approx([2.0])
