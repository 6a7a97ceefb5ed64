"""Results of serving clients as rows: vLLM's and SGLang's, genai-perf's and aiperf's.

A result is one JSON object, of which a file has one or one in each line. Names of fields are
recalled: of ``vllm bench serve`` (0.10) and ``sglang.bench_serving`` (0.5), which descend from the
same script, and of what genai-perf and aiperf export. SGLang's do not name the model, none the GPU
or how many serve: keys ``gpu``, ``model``, ``engine``, ``tensor_parallel``, ``weights_dtype`` and
``kv_dtype`` may be added (vLLM's ``--metadata`` does).
"""

import json
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from simulator.errors import MeasurementError
from simulator.evidence import tables
from simulator.inputs.files import LARGEST_FILE, read_text
from simulator.inputs.workload import LARGEST_TOKENS

# Names of fields, settings and keys.
_TABLES = tables("rows/benchmarks.toml")
_COLUMNS, _AVERAGES, _SETTINGS = (_TABLES[name] for name in ("columns", "averages", "settings"))
# What a user adds of these comes before what the client knows: a path, an interface.
_NAMES = ("model", "engine")
_NEEDS = ("mean_tpot_ms", "completed", "total_input_tokens", "total_output_tokens")
# Keys that a user may add, besides fields above by their columns' names.
_ADDED = ("source", "gpu", "tensor_parallel", "weights_dtype", "kv_dtype", "length_ratio")
# The ``random_range_ratio`` of clients that draw equal lengths.
_EQUAL = {"sglang": 1.0}


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
    if not found:
        raise MeasurementError(f"{path}: no result of a benchmark")
    rows = [{"line": number, **_row(result, f"{path}, line {number}")} for number, result in found]
    return pd.DataFrame(rows)


def _settings(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the names and values of nested settings, of a list the first."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _settings(inner, key)
    elif isinstance(value, list):
        yield from _settings(value[0] if value else None, name)
    elif value is not None and name in _SETTINGS:
        yield _SETTINGS[name], value


def _under_vllms_names(result: dict[str, Any]) -> dict[str, Any]:
    """Return an export of genai-perf or aiperf under the names of vLLM's client."""
    means = {
        name: result[field].get("avg")
        for field, name in _AVERAGES.items()
        if isinstance(result.get(field), dict)
    }
    if not means:
        return result
    return {"completed": 1, **dict(_settings(result.get("input_config"))), **result, **means}


def _row(result: Any, where: str) -> dict[str, Any]:
    """Return one result as a row."""
    if not isinstance(result, dict):
        raise MeasurementError(f"{where}: not a result of a benchmark: no JSON object")
    result = _under_vllms_names(result)
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
        first, second = (column, name) if column in _NAMES else (name, column)
        row[column] = result.get(second) if result.get(first) is None else result[first]
    if row["concurrency"] is None:
        raise MeasurementError(
            f"{where}: max_concurrency is not given: only a fixed number of requests in flight "
            "is predicted"
        )
    if row["model"] is None:
        raise MeasurementError(f"{where}: no model is named; add the key model")
    varied = result.get("random_range_ratio") != _EQUAL.get(str(row["engine"]))
    return {
        "weights_dtype": "auto",
        # Tokens accepted for each step, where drafts are verified.
        "speculative": int(bool(result.get("accept_length"))),
        "lengths_vary": int(varied),
        **row,
        "input_len": result["total_input_tokens"] / result["completed"],
        "output_len": result["total_output_tokens"] / result["completed"],
    }
