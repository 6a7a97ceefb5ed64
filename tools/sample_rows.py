"""Write the sample rows: synthetic times of an L4, to try calibrate and validate.

They are this model's own times with the constants below in place of the shipped ones, and 2 %
noise. Run it again only to change them: the rows stand for a card, and a card does not change with
the model.
"""

import csv
from itertools import product
from pathlib import Path

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


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
