"""Results of serving clients, read as rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.errors import MeasurementError
from simulator.evidence.predict.validate import validate
from simulator.evidence.rows.reading import load

# As vLLM's client writes it (the fields that matter), with two keys of --metadata.
VLLM: dict[str, Any] = {
    "backend": "vllm",
    "model_id": "meta-llama/Llama-3.1-8B-Instruct",
    "request_rate": "inf",
    "max_concurrency": 32,
    "completed": 320,
    "total_input_tokens": 327_680,
    "total_output_tokens": 81_920,
    "mean_ttft_ms": 120.0,
    "mean_tpot_ms": 9.9,
    "gpu": "h100-sxm",
    "tensor_parallel": "1",
}


def write(folder: Path, name: str, *found: dict[str, Any]) -> Path:
    """Write results, one in each line."""
    path = folder / name
    path.write_text("\n".join(json.dumps(each) for each in found), encoding="utf-8")
    return path


def test_a_result_is_a_row_of_its_mean_lengths(tmp_path: Path) -> None:
    """327,680 tokens of 320 requests are 1,024 each; 81,920 are 256."""
    row = load([write(tmp_path, "result.json", VLLM)]).tables["serving"].iloc[0]
    assert (row["input_len"], row["output_len"], row["concurrency"]) == (1024, 256, 32)
    assert (row["framework"], row["gpu_id"], row["weights_dtype"]) == ("vllm", "h100-sxm", "auto")
    assert row["time_s"] == pytest.approx(9.9e-3)
    assert row["ttft_ms"] == 120


def test_each_line_of_a_file_is_a_result(tmp_path: Path) -> None:
    """SGLang's client adds a line for each run; its model and GPU are named by hand."""
    asked = {key: value for key, value in VLLM.items() if key not in ("model_id", "gpu")}
    asked |= {"backend": "sglang", "model": "llama-3.1-8b"}
    path = write(tmp_path, "runs.jsonl", asked, asked | {"max_concurrency": 64})
    measurements = load([path], gpu="h100-sxm")
    assert measurements.tables["serving"]["concurrency"].tolist() == [32, 64]
    assert measurements.tables["serving"]["framework"].tolist() == ["sglang"] * 2
    assert len(validate(measurements).rows) == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"max_concurrency": None}, "line 1: max_concurrency is not given"),
        ({"mean_tpot_ms": None}, "line 1: not a result of a serving benchmark: no mean_tpot_ms"),
        ({"completed": 0}, "no completed"),
    ],
)
def test_a_result_that_cannot_be_used_says_why(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    """One line names the file, the place and the field."""
    with pytest.raises(MeasurementError, match=words):
        load([write(tmp_path, "result.json", VLLM | changed)])


@pytest.mark.parametrize("text", ["hello", "[1]", '{"a": 1}', ""])
def test_another_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    """No traceback for what is no result."""
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"other\.json"):
        load([path])
