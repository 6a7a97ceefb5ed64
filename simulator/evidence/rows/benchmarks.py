"""Results of serving benchmarks as rows: ``vllm bench serve`` and ``sglang.bench_serving``.

A result is one JSON object, of which a file has one or one in each line. Names of fields are
recalled, of vLLM 0.10 and SGLang 0.5; both clients descend from the same script. SGLang's do not
name the model or the GPU, and neither tells how many GPUs serve: keys ``gpu``, ``model``,
``tensor_parallel``, ``weights_dtype`` and ``kv_dtype`` may be added (vLLM's ``--metadata`` does).
"""

import json
import reprlib
from pathlib import Path
from typing import Any

import pandas as pd

from simulator.errors import MeasurementError
from simulator.inputs.files import LARGEST_FILE, read_text
from simulator.inputs.workload import LARGEST_TOKENS

# Fields of a result that are columns by another name.
_COLUMNS = {
    "mean_tpot_ms": "tpot_ms",
    "mean_ttft_ms": "ttft_ms",
    "max_concurrency": "concurrency",
    "model_id": "model",
    "backend": "engine",
}
_NEEDS = ("mean_tpot_ms", "completed", "total_input_tokens", "total_output_tokens")
# Keys that a user may add, besides fields above by their columns' names.
_ADDED = ("gpu", "tensor_parallel", "weights_dtype", "kv_dtype", "length_ratio")


def results(path: Path) -> pd.DataFrame:
    """Read a file of results as serving rows.

    Lengths are means over the requests. The checkpoint's own format is that of the weights unless
    ``weights_dtype`` says otherwise.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or is no JSON.
    MeasurementError
        If an object lacks a field, or the client kept no fixed number of requests in flight.
    """
    text = read_text(path, MeasurementError, largest=LARGEST_FILE)
    try:
        found = [(1, json.loads(text))]
    except json.JSONDecodeError:
        lines = enumerate(text.splitlines(), start=1)
        found = [(number, json.loads(line)) for number, line in lines if line.strip()]
    return pd.DataFrame([_row(result, f"{path}, line {number}") for number, result in found])


def _row(result: Any, where: str) -> dict[str, Any]:
    """Return one result as a row."""
    if not isinstance(result, dict):
        raise MeasurementError(f"{where}: not a result of a benchmark: no JSON object")
    for name in _NEEDS:
        value = result.get(name)
        if not value:
            raise MeasurementError(f"{where}: not a result of a serving benchmark: no {name}")
        if not isinstance(value, int | float) or not 0 < value <= LARGEST_TOKENS:
            raise MeasurementError(
                f"{where}: {name} = {reprlib.repr(value)} is not a count or time"
            )
    for name in (*_ADDED, *_COLUMNS, *_COLUMNS.values()):
        if isinstance(result.get(name), list | dict):
            told = reprlib.repr(result[name])
            raise MeasurementError(f"{where}: {name} = {told} is not a name or number")
    row = {name: result[name] for name in _ADDED if name in result}
    for name, column in _COLUMNS.items():
        row[column] = result.get(column) if result.get(name) is None else result[name]
    if row["concurrency"] is None:
        raise MeasurementError(
            f"{where}: max_concurrency is not given: only a fixed number of requests in flight "
            "is predicted"
        )
    return {
        "weights_dtype": "auto",
        **row,
        "input_len": result["total_input_tokens"] / result["completed"],
        "output_len": result["total_output_tokens"] / result["completed"],
    }
