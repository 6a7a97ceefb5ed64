"""The kinds of measured rows: by which columns each is known, and what else it may say."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from simulator.units import MICROSECOND, MILLISECOND

RowKind = Literal[
    "decode_attention",
    "prefill_attention",
    "gemm",
    "elementwise",
    "all_reduce",
    "shared_prefix_attention",
    "decode_step",
    "end_to_end",
    "bandwidth",
    "small_kernels",
]

ROW_KINDS: tuple[RowKind, ...] = get_args(RowKind)


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns of a kind of row.

    Attributes
    ----------
    sizes
        Columns without which it is not this kind; positive numbers.
    words
        The same, of text.
    result, unit_s
        The measured column, and its unit in seconds (or in bytes per second for a bandwidth).
    optional
        Columns that may be absent, with what is assumed then.
    """

    sizes: tuple[str, ...]
    words: tuple[str, ...]
    result: str
    unit_s: float
    optional: Mapping[str, Any]

    @property
    def needs(self) -> set[str]:
        """Columns without which a file holds no such rows."""
        return {*self.sizes, *self.words, self.result}


_ATTENTION = ("batch", "q_heads", "kv_heads", "head_dim")

_GRAPH = {"timing": "graph"}

LAYOUTS: dict[RowKind, Layout] = {
    "decode_attention": Layout((*_ATTENTION, "kv_len"), (), "latency_us", MICROSECOND, _GRAPH),
    "prefill_attention": Layout(
        (*_ATTENTION, "q_len", "kv_len"), (), "latency_us", MICROSECOND, {"causal": 1, **_GRAPH}
    ),
    "gemm": Layout(("m", "n", "k"), (), "latency_us", MICROSECOND, _GRAPH),
    "elementwise": Layout(("rows", "width", "bytes"), ("op",), "latency_us", MICROSECOND, _GRAPH),
    "all_reduce": Layout(
        ("num_gpus", "message_bytes"),
        (),
        "latency_us",
        MICROSECOND,
        {"impl": "", "collective": "all_reduce", **_GRAPH},
    ),
    "shared_prefix_attention": Layout(
        (*_ATTENTION, "prefix_len", "suffix_len"), ("mode",), "latency_us", MICROSECOND, _GRAPH
    ),
    "decode_step": Layout(
        ("context_tokens", "samples"),
        ("model", "attention"),
        "step_ms",
        MILLISECOND,
        {
            "kv_layout": "copies",
            "execution": "graph",
            "expand_kv": 0,
            "tensor_parallel": 1,
            "weights_dtype": "bf16",
            "status": "ok",
        },
    ),
    "end_to_end": Layout(
        ("batch", "input_len", "output_len"),
        ("model",),
        "step_ms",
        MILLISECOND,
        {"weight_dtype": "bf16", "tp": 1},
    ),
    "bandwidth": Layout((), ("test",), "gb_per_s", 1e9, {"working_set_bytes": None}),
    "small_kernels": Layout(
        ("block_size", "bytes_moved"), ("mode",), "us_per_kernel", MICROSECOND, {}
    ),
}


def recognise(columns: Iterable[str]) -> list[RowKind]:
    """Return the kinds that a file with these columns can hold.

    A kind whose columns are all among another's is left out, so that a prefill call, which has all
    that a decode call has and its query length, is not both.

    >>> recognise(["latency_us", "k", "n", "m", "note"])
    ['gemm']
    """
    present = set(columns)
    needs = {kind: layout.needs for kind, layout in LAYOUTS.items()}
    found = [kind for kind in ROW_KINDS if needs[kind] <= present]
    return [kind for kind in found if not any(needs[kind] < needs[other] for other in found)]
