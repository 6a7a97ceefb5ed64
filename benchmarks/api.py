"""CPU time of single answers of the Python API: python benchmarks/api.py.

Every answer is computed repeatedly in one process, which has already read profiles and presets: the
time is that of counting and timing.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import simulator

QUESTION = {"samples": 16, "context_tokens": "8K"}


def compare_with_break_even(*question: Any, **sizes: Any) -> object:
    """Compare, and find the break-even points, which are found when they are read."""
    result = simulator.compare(*question, **sizes)
    return result.break_even_samples, result.break_even_context_tokens


ANSWERS: dict[str, tuple[Callable[..., object], int]] = {
    "estimate": (simulator.estimate, 400),
    "compare": (simulator.compare, 40),
    "compare, and its break-even points": (compare_with_break_even, 20),
    "generate": (simulator.generate, 40),
}
ROUNDS = 5


def cpu_ms(ask: Callable[[], object], calls: int) -> float:
    """Return the CPU time of one call, the minimum of several rounds. [ms]."""
    ask()
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(calls):
            ask()
        times.append((time.process_time() - start) / calls)
    return min(times) * 1e3


def main() -> None:
    """Time each answer."""
    for name, (answer, calls) in ANSWERS.items():
        found = cpu_ms(partial(answer, "llama-3.1-8b", "h100-sxm", **QUESTION), calls)
        print(f"simulator.{name}: {found:.2f} ms")


if __name__ == "__main__":
    main()
