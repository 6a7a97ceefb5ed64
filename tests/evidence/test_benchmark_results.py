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
    path = write(tmp_path, "runs.jsonl", asked, asked | {"max_concurrency": 64, "mean_tpot_ms": 19})
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
        ({"model_id": None}, "line 1: no model is named; add the key model"),
    ],
)
def test_a_result_that_cannot_be_used_says_why(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    """One line names the file, the place and the field."""
    with pytest.raises(MeasurementError, match=words):
        load([write(tmp_path, "result.json", VLLM | changed)])


# The same run as genai-perf and aiperf export it; their settings are nested unlike.
MEANS = {
    "inter_token_latency": {"unit": "ms", "avg": 9.9, "p50": 9.8},
    "time_to_first_token": {"unit": "ms", "avg": 120.0},
    "input_sequence_length": {"unit": "tokens", "avg": 1024.0},
    "output_sequence_length": {"unit": "tokens", "avg": 256.0},
    "request_count": {"unit": "requests", "avg": 320.0},
}
EXPORTS: dict[str, dict[str, Any]] = {
    "genai-perf": {
        "model": ["meta-llama/Llama-3.1-8B-Instruct"],
        "backend": "vllm",
        "perf_analyzer": {"stimulus": {"concurrency": 32}},
    },
    "aiperf": {
        "endpoint": {"model_names": ["meta-llama/Llama-3.1-8B-Instruct"], "streaming": True},
        "loadgen": {"concurrency": 32, "request_rate": None},
    },
}


@pytest.mark.parametrize("client", EXPORTS)
def test_nvidias_clients_export_the_same_row(tmp_path: Path, client: str) -> None:
    """Indented, as they write it; the inter-token latency is a time per output token."""
    path = tmp_path / "profile_export.json"
    path.write_text(json.dumps({**MEANS, "input_config": EXPORTS[client]}, indent=2))
    plain = load([write(tmp_path, "result.json", VLLM)])
    found = load([path], gpu="h100-sxm")
    kept = ["model", "input_len", "output_len", "concurrency", "tpot_ms", "ttft_ms", "line"]
    assert found.tables["serving"][kept].equals(plain.tables["serving"][kept])
    assert len(validate(found).rows) == 1


def test_accepted_drafts_and_lengths_that_vary_are_told(tmp_path: Path) -> None:
    """SGLang's client draws lengths from a range unless its ratio is 1."""
    run = VLLM | {"backend": "sglang"}
    path = write(
        tmp_path,
        "runs.jsonl",
        run | {"accept_length": None, "random_range_ratio": 1.0},
        run | {"accept_length": 2.7, "random_range_ratio": 0.0},
    )
    table = load([path]).tables["serving"]
    assert table["speculative"].tolist() == [0, 1]
    assert table["lengths_vary"].tolist() == [0, 1]


@pytest.mark.parametrize("text", ["hello", "[1]", '{"a": 1}', ""])
def test_another_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    """No traceback for what is no result."""
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MeasurementError, match=r"other\.json"):
        load([path])


@pytest.mark.parametrize(
    ("named", "asked", "told"),
    [
        ({"backend": "openai-chat", "engine": "sglang"}, None, "sglang"),
        ({"backend": "openai-chat"}, "trtllm", "trtllm"),
        ({"backend": "vllm"}, "trtllm", "vllm"),
        ({"backend": "openai"}, None, "openai"),
    ],
)
def test_what_a_user_adds_comes_before_the_clients_names(
    tmp_path: Path, named: dict[str, Any], asked: str | None, told: str
) -> None:
    """A client knows the interface of a server and the path of its model."""
    own = {"model_id": "/models/weights", "model": "llama-3.1-8b", **named}
    found = load([write(tmp_path, "result.json", VLLM | own)], engine=asked)
    (row,) = found.tables["serving"].to_dict("records")
    assert (row["model"], row["framework"]) == ("llama-3.1-8b", told)
    assert len(validate(found).rows) == 1
