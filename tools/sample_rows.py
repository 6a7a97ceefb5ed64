"""Write the sample rows: synthetic times of an L4 and runs under load, to try calibrate, validate.

They are this model's own times with the constants below in place of the shipped ones, and 2 %
noise. Run it again only to change them: the rows stand for a card, and a card does not change with
the model.
"""

import csv
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from simulator.evidence.fit.solver import with_constants
from simulator.evidence.predict.validate import validate
from simulator.evidence.rows.reading import load
from simulator.inputs.hardware import load_hardware
from simulator.resources import data_dir

GPU, NOISE = "l4", 0.02
TRUTH = {
    "gemm_launch_us": 5.0,
    "gemm_bandwidth_fraction": 0.70,
    "attention_launch_us": 9.0,
    "attention_bandwidth_fraction": 0.72,
    "vllm_served_step_us": 4000.0,
    "vllm_served_sequence_us": 150.0,
}
SAME = {"source": "synthetic", "gpu": GPU, "dtype": "bf16", "timing": "graph", "l2_state": "cold"}
WEIGHTS = ((4096, 4096), (6144, 4096), (28672, 4096), (4096, 14336), (1024, 4096), (2048, 2048))
CALLS = {
    "gemm": [{"m": m, "n": n, "k": k} for (n, k), m in product(WEIGHTS, (1, 8, 32, 128))],
    "decode_attention": [
        {"batch": batch, "q_heads": 32, "kv_heads": kv_heads, "head_dim": 128, "kv_len": tokens}
        for batch, kv_heads, tokens in product((1, 4, 16), (8, 32), (512, 2048, 8192, 32768))
    ],
}
# Results of vLLM's client: with so many users, each of requests with so many tokens in and out.
USERS, REQUESTS, LENGTHS = (1, 2, 4, 8, 16, 32), 10, (256, 512)
RUN = {"backend": "vllm", "model_id": "llama-3.2-3b", "source": "synthetic", "gpu": GPU}


def main() -> None:
    """Time every call with those constants, and write a file for each kind."""
    folder = data_dir("sample_rows")
    card = with_constants(load_hardware(GPU), TRUTH)
    random = np.random.default_rng(2026)
    for kind, calls in CALLS.items():
        path = folder / f"synthetic_l4_{kind}.csv"
        _write(path, [{**SAME, **call, "latency_us": 1e6} for call in calls])  # to be predicted
        rows = validate(load([path]), gpu=card).rows
        times = rows["predicted_latency_us"] * np.exp(random.normal(0, NOISE, len(rows)))
        _write(
            path,
            [
                {**SAME, **call, "latency_us": f"{time:.2f}"}
                for call, time in zip(calls, times, strict=True)
            ],
        )
    path = folder / "synthetic_l4_runs.jsonl"
    runs = [
        {
            **RUN,
            "max_concurrency": users,
            "completed": REQUESTS * users,
            "total_input_tokens": REQUESTS * users * LENGTHS[0],
            "total_output_tokens": REQUESTS * users * LENGTHS[1],
            "mean_tpot_ms": 1e6,
        }
        for users in USERS
    ]
    _write_lines(path, runs)
    rows = validate(load([path]), gpu=card).rows
    noise = np.random.default_rng(1).normal(0, NOISE, len(rows))
    times = rows["predicted_tpot_ms"] * np.exp(noise)
    _write_lines(
        path,
        [run | {"mean_tpot_ms": round(time, 3)} for run, time in zip(runs, times, strict=True)],
    )


def _write_lines(path: Path, runs: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(run) + "\n" for run in runs), encoding="utf-8")


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
