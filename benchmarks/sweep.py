"""Speed of a sweep on one core: python benchmarks/sweep.py [--points 4m].

Every point is a whole decode step, counted and timed operation by operation for standard and for
bifurcated attention, with memory, verdict and all columns of ``bifurcate sweep``. Only writing to a
file is left out.
"""

import argparse
import os
import resource
import sys
import time

MIB = 2**20
# ru_maxrss is in KiB, on macOS in bytes.
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024

GPU = "h100-sxm"
MODELS = {
    "llama-3.1-8b": "dense, grouped KV heads",
    "gpt-oss-20b": "experts, sliding windows",
    "deepseek-v3": "experts, latent cache",
}
SAMPLES, DECODED, LONGEST_CONTEXT = 250, 40, 131_072


def use_one_core() -> None:
    """Keep this process, and any threads of libraries, on one core."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def peak_memory_mib() -> float:
    """Return the peak memory of this process so far. [MiB]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT_BYTES / MIB


def measure(model: str, points: int) -> tuple[int, int, float]:
    """Sweep about ``points`` points; return operations per step, points, and seconds."""
    from simulator import Scenario, load_model, prepare_sweep
    from simulator.counts.transformer import decode_operations
    from simulator.inputs.setup import Setup
    from simulator.inputs.workload import Workload

    contexts = max(1, points // (SAMPLES * DECODED))
    spacing = max(1, LONGEST_CONTEXT // contexts)
    sweep = prepare_sweep(
        Scenario(
            schema_version=1,
            id="benchmark",
            title="benchmark",
            description="benchmark",
            question="how fast",
            sources=("none",),
            verdict="mixed",
            verdict_reason="none",
            models=(model,),
            gpus=(GPU,),
            workload={
                "samples": tuple(range(1, SAMPLES + 1)),
                "context_tokens": tuple(range(spacing, spacing * contexts + 1, spacing)),
                "decoded_tokens": tuple(range(0, 8 * DECODED, 8)),
            },
        )
    )
    work = Workload(samples=2, context_tokens=1024)
    operations = decode_operations(load_model(model), Setup(), work, resident_blocks=132)
    done = 0
    start = time.perf_counter()
    for block in sweep.blocks():
        done += len(block["speedup"])
    seconds = time.perf_counter() - start
    if done != sweep.points:
        sys.exit(f"{model}: {done} points came back of {sweep.points}")
    return sum(operation.repeat for operation in operations), done, seconds


def main() -> None:
    """Measure every model and print one row each."""
    from simulator.units import parse_count

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--points", type=parse_count, default=4_000_000, help="points per model, as 4m or 100m [4m]"
    )
    parser.add_argument("--model", action="append", help="only this preset; may be repeated")
    parser.add_argument("--runs", type=int, default=3, help="runs, of which the fastest counts [3]")
    given = parser.parse_args()
    use_one_core()
    print("| model | operations per step | points | seconds | points/s | peak memory [MiB] |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for model in given.model or MODELS:
        operations, points, seconds = min(
            (measure(model, given.points) for _ in range(given.runs)), key=lambda run: run[2]
        )
        kind = f" ({MODELS[model]})" if model in MODELS else ""
        print(
            f"| {model}{kind} | {operations} | {points:,} | {seconds:.2f} "
            f"| {points / seconds:,.0f} | {peak_memory_mib():.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
