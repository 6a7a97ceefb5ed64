"""The kinds of measured rows: their columns, and the least work that they imply."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from simulator.evidence import tables
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.timing.interval import Family
from simulator.units import MICROSECOND

# A key of ``KINDS``.
RowKind = str

# A column: a sliding window, which may be infinite.
WINDOW = "window"


# What columns hold: numbers, switches, visits, formats, and names of schemes and of kernels.
VALUES = tables("rows/values.toml")

# DeepSeek-V3: widths of a head's expanded keys and values, and the hidden size.
EXPANDED_WIDTHS, MODULE_HIDDEN = (192, 128), 7168

# DeepSeek-V3.2 and others: bytes of an index key, 128 values of 8 bits and their scale.
INDEX_KEY_BYTES = 132

# Names of quantise kernels: a dynamic one, which finds its scales, may be given as what it takes
# longer than a static one.
STATIC, DIFFERENCE, DYNAMIC = "static_quantize", "dynamic_minus_static", "dynamic_quantize"

# The share of a mean over drawn routings that any draw has (aiconfigurator rows: 10 to 25 % off).
DRAWN_SHARE = 0.75

_Figure = Callable[[pd.DataFrame], "pd.Series[float]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindOfRow:
    """One kind of row: its columns, as ``kinds.toml`` describes them, and the least work of a row.

    Attributes
    ----------
    least_bytes, least_flops
        The least bytes that a call must read and write, and FLOPs of its products; None if the
        columns do not tell.
    """

    sizes: Sequence[str] = ()
    words: Sequence[str] = ()
    optional: Mapping[str, Any] = field(default_factory=lambda: {"timing": "graph"})
    result: str = "latency_us"
    unit_s: float = MICROSECOND
    shown: Sequence[str] = ()
    series: Sequence[str] = ()
    least_bytes: _Figure | None = None
    least_flops: _Figure | None = None
    weights: Sequence[str] = ()
    family: Family | None = None
    alike: Sequence[str] = ()

    @property
    def needs(self) -> set[str]:
        """Columns that a file of such rows must have."""
        return {*self.sizes, *self.words, self.result}


def _elements(rows: pd.DataFrame, column: str) -> "pd.Series[float]":
    """Return the size of an element of a format. [bytes]."""
    return rows[column].map(DTYPE_BYTES).astype("float64")


def _token_bytes(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the size of one token's keys and values. [bytes]."""
    return 2 * rows["kv_heads"] * rows["head_dim"] * _elements(rows, "kv_dtype")


def read_tokens(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the keys that a sequence's queries see: no more than all of them and their window."""
    if WINDOW not in rows:
        return rows["kv_len"]
    queries = rows["q_len"] - 1 if "q_len" in rows else 0
    return rows["kv_len"].clip(upper=rows[WINDOW] + queries)


def cache_bytes(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the size of the keys and values that attention rows read. [bytes]."""
    return rows["batch"] * read_tokens(rows) * _token_bytes(rows)


def _attention_flops(rows: pd.DataFrame, keys: "pd.Series[float]") -> "pd.Series[float]":
    """Return the FLOPs of attention over a number of keys, or pairs of query and key."""
    return 4 * rows["batch"] * rows["q_heads"] * rows["head_dim"] * keys


def attended_pairs(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the pairs of query and key in a causal prefill call, which ends at the last key.

    The last queries do not see the keys before their window: ``kv - w`` keys for the last query,
    one less for each query before it.
    """
    q, kv = rows["q_len"], rows["kv_len"]
    causal = q * kv - q * (q - 1) / 2
    if WINDOW in rows:
        unseen = (kv - rows[WINDOW]).clip(lower=0)
        late = unseen.clip(upper=q)
        causal = causal - (late * unseen - late * (late - 1) / 2)
    return causal.where(rows["causal"] == 1, q * kv)


def _linear_bytes(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the least traffic of linear attention, whose convolution may be of keys alone.

    A decode step reads and writes every state; a prefill may start without one.
    """
    tokens = rows["batch"] * rows["seq_len"]
    keys, values = (
        rows["num_k_heads"] * rows["head_k_dim"],
        rows["num_v_heads"] * rows["head_v_dim"],
    )
    element = pd.to_numeric(rows["state_bytes_per_element"]).fillna(2)
    states = element * rows["batch"] * values * rows["head_k_dim"]
    moved = 2 * tokens * (2 * keys + 2 * values) + states * (2 - (rows["phase"] == "prefill"))
    return moved.where(rows["op"] != "conv", 4 * tokens * keys)


def latent_widths(rows: pd.DataFrame) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """Return the widths of keys and values: of each head if expanded, else of the cache."""
    expanded = rows["form"] == "expanded_192_128"
    key = (rows["latent_dim"] + rows["rope_dim"]).mask(expanded, EXPANDED_WIDTHS[0])
    return key, rows["latent_dim"].mask(expanded, EXPANDED_WIDTHS[1])


def _latent_bytes(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the size of a batch's latent cache. [bytes]."""
    width = rows["latent_dim"] + rows["rope_dim"]
    return rows["batch"] * rows["kv_len"] * width * _elements(rows, "kv_dtype")


def _latent_flops(
    rows: pd.DataFrame, keys: "pd.Series[float]", widths: "pd.Series[float]"
) -> "pd.Series[float]":
    """Return the least FLOPs of latent attention, at the peak of the products' 16 bits.

    A kernel may multiply a cache of 8 bits in that format, at twice this peak.
    """
    return rows["batch"] * rows["heads"] * keys * widths * _elements(rows, "kv_dtype")


def _output_bytes(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the size of the weights of a module's output product. [bytes]."""
    return rows["heads"] * EXPANDED_WIDTHS[1] * MODULE_HIDDEN * _elements(rows, "gemm_dtype")


def expert_visits(rows: pd.DataFrame) -> "tuple[pd.Series[float], pd.Series[float]]":
    """Return token-expert pairs and distinct experts of the GPU of a row, at least.

    Rows that do not tell, and skewed ones, whose numbers are means of drawn routings, count only
    what is certain: balanced visits, or the experts of one token.
    """
    pairs = rows["tokens"] * rows["top_k"]
    local = rows["experts"] / rows["expert_parallel"]
    balanced = rows["routing"].astype(str) == "balanced"
    of_one = rows["top_k"].where(rows["expert_parallel"] == 1, 1)
    certain = (pairs / rows["expert_parallel"]).clip(upper=local).where(balanced, of_one)
    told = rows["distinct_experts"].where(balanced, DRAWN_SHARE * rows["distinct_experts"])
    share = rows["rank_pairs"].where(balanced, DRAWN_SHARE * rows["rank_pairs"])
    return share.fillna(pairs / rows["expert_parallel"]), told.fillna(certain)


def _expert_weights(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the parameters of one expert on a GPU."""
    matrices = (2 + rows["gated"]) * rows["hidden_size"] * rows["intermediate"]
    return matrices / rows["tensor_parallel"]


def _sparse_bytes(rows: pd.DataFrame) -> "pd.Series[float]":
    """Return the least bytes of sparse attention: its index keys, if it reads those of each token.

    Kernels of selection and attention read scores and tokens that may be in L2.
    """
    keys = rows["batch"] * rows["past_len"] / rows["compress_ratio"] * INDEX_KEY_BYTES
    scores = rows["kind"].astype(str).str.contains("logits|generation|context")
    return keys.where(scores & ~rows["kind"].astype(str).str.contains("skip|hca"), 0.0)


_LEAST_BYTES: dict[RowKind, _Figure] = {
    "decode_attention": cache_bytes,
    "prefill_attention": cache_bytes,
    "mla_decode": _latent_bytes,
    "mla_prefill": _latent_bytes,
    "mla_module": _output_bytes,
    "gemm": lambda rows: _elements(rows, "dtype") * (rows["m"] * rows["k"] + rows["n"] * rows["k"]),
    "moe": lambda rows: expert_visits(rows)[1] * _expert_weights(rows) * _elements(rows, "dtype"),
    "elementwise": lambda rows: rows["bytes"],
    # The prefix once: L2 may serve the other reads.
    "shared_prefix_attention": lambda rows: (
        (rows["prefix_len"] + rows["batch"] * rows["suffix_len"]) * _token_bytes(rows)
    ),
    "linear_attention": _linear_bytes,
    "sparse_attention": _sparse_bytes,
}
_LEAST_FLOPS: dict[RowKind, _Figure] = {
    "decode_attention": lambda rows: _attention_flops(rows, read_tokens(rows)),
    "prefill_attention": lambda rows: _attention_flops(rows, attended_pairs(rows)),
    "mla_decode": lambda rows: _latent_flops(
        rows, rows["kv_len"], 2 * rows["latent_dim"] + rows["rope_dim"]
    ),
    "mla_prefill": lambda rows: _latent_flops(rows, attended_pairs(rows), sum(latent_widths(rows))),
    # At the peak of 16 bits: two bytes of weights for each multiply-add.
    "mla_module": lambda rows: rows["batch"] * rows["q_len"] * _output_bytes(rows),
    "gemm": lambda rows: 2 * rows["m"] * rows["n"] * rows["k"],
    "moe": lambda rows: 2 * expert_visits(rows)[0] * _expert_weights(rows),
    "shared_prefix_attention": lambda rows: _attention_flops(
        rows, rows["prefix_len"] + rows["suffix_len"]
    ),
}
KINDS: dict[RowKind, KindOfRow] = {
    kind: KindOfRow(
        least_bytes=_LEAST_BYTES.get(kind), least_flops=_LEAST_FLOPS.get(kind), **columns
    )
    for kind, columns in tables("rows/kinds.toml").items()
}


def added_differences(rows: pd.DataFrame, result: str) -> pd.DataFrame:
    """Return rows of quantise kernels with differences added to the static kernel's time.

    Rows without their static kernel stay differences.

    Parameters
    ----------
    rows
        Rows of elementwise kernels.
    result
        The column of their times.
    """
    same = ["gpu", "framework", "version", "timing", "rows", "width"]
    static = rows[rows["op"] == STATIC].drop_duplicates(same).set_index(same)[result]
    known = pd.MultiIndex.from_frame(rows[same])
    added = rows[result] + static.reindex(known).to_numpy()
    dynamic = (rows["op"] == DIFFERENCE) & added.notna()
    return rows.assign(
        **{result: rows[result].where(~dynamic, added), "op": rows["op"].where(~dynamic, DYNAMIC)}
    )


def recognise(columns: Iterable[str]) -> list[RowKind]:
    """Return the kinds that a file with these columns can hold.

    A kind whose columns are a subset of another's is left out: a prefill call has all columns of a
    decode call plus its query length, but is not both.

    >>> recognise(["latency_us", "k", "n", "m", "note"])
    ['gemm']
    """
    present = set(columns)
    found = [kind for kind in KINDS if KINDS[kind].needs <= present]
    return [
        kind for kind in found if not any(KINDS[kind].needs < KINDS[other].needs for other in found)
    ]
