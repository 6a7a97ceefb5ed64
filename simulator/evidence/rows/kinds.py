"""The kinds of measured rows: their columns, and the least work that they imply."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pandas as pd

from simulator.inputs.dtypes import DTYPE_BYTES, Dtype
from simulator.units import MICROSECOND, MILLISECOND

# A key of ``KINDS``.
RowKind = str

# Optional columns of numbers, with the least and what they count. A sliding window may be infinite.
WINDOW = "window"
NUMBERS: dict[str, tuple[float, str]] = {
    "num_gpus": (2, "a number of GPUs"),
    **dict.fromkeys(("tensor_parallel", "expert_parallel", "tp"), (1, "a number of GPUs")),
    **dict.fromkeys(("latent_dim", "rope_dim", "past_len"), (0, "a size")),
    "compress_ratio": (1, "a number of tokens"),
    WINDOW: (1, "a number of tokens"),
    "weights_rotated": (1, "a number of copies"),
    "length_ratio": (0.01, "a ratio of lengths from 0.01"),
}
# Optional columns of 0 or 1, of visits to experts where they are known, and of formats.
SWITCHES = (
    *("causal", "expand_kv", "host_bound", "gated", "lengths_vary"),
    *("fits_l2", "plausible", "series_plausible"),
)
VISITS = ("alpha", "distinct_experts", "rank_pairs")
DTYPE_COLUMNS = (
    *("dtype", "kv_dtype", "gemm_dtype", "weight_dtype", "weights_dtype", "product_dtype"),
)
# DeepSeek-V3: widths of a head's expanded keys and values, and the hidden size.
EXPANDED_WIDTHS, MODULE_HIDDEN = (192, 128), 7168

# DeepSeek-V3.2 and others: bytes of an index key, 128 values of 8 bits and their scale.
INDEX_KEY_BYTES = 132

# Names of quantise kernels: a dynamic one, which finds its scales, may be given as what it takes
# longer than a static one.
STATIC, DIFFERENCE, DYNAMIC = "static_quantize", "dynamic_minus_static", "dynamic_quantize"
# Names of quantisation schemes: the stored format of the weights, and that of the products.
SCHEMES: dict[str, tuple[Dtype, Dtype]] = {
    "int4_wo": ("int4", "bf16"),
    "w4afp8": ("int4", "fp8"),
    "w4a16_mxfp4": ("mxfp4", "bf16"),
    "w4a8_mxfp4_mxfp8": ("mxfp4", "fp8"),
}

# Kinds of rows of sparse attention: whole modules, and kernels of the indexer and of attention.
SPARSE_KINDS = (
    *("dsa_generation", "dsa_context"),
    *("glm5_mqa_logits", "dsv4_paged_mqa_logits", "glm5_topk", "glm5_dsa_attn"),
)

# The share of a mean over drawn routings that any draw has (aiconfigurator rows: 10 to 25 % off).
DRAWN_SHARE = 0.75
_EXPERTS = ("hidden_size", "intermediate", "experts", "top_k")

_Figure = Callable[[pd.DataFrame], "pd.Series[float]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KindOfRow:
    """One kind of row.

    Attributes
    ----------
    sizes
        Required columns of positive numbers.
    words
        Required columns of text.
    optional
        Optional columns, with their default values.
    result, unit_s
        The measured column, and its unit in seconds (of a bandwidth: in bytes per second).
    shown
        Columns that describe a row for people.
    series
        Columns that rows of a series share, beside GPU, library and kernel: a shape.
    least_bytes, least_flops
        The least bytes that a call must read and write, and FLOPs of its products; None if the
        columns do not tell.
    weights
        For whole steps: the columns with the weights' format and the number of GPUs.
    """

    sizes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    optional: Mapping[str, Any] = field(default_factory=lambda: {"timing": "graph"})
    result: str = "latency_us"
    unit_s: float = MICROSECOND
    shown: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    least_bytes: _Figure | None = None
    least_flops: _Figure | None = None
    weights: tuple[str, str] | None = None

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


_LINEAR = ("num_k_heads", "head_k_dim", "num_v_heads", "head_v_dim")


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


_LATENT = {"latent_dim": 512, "rope_dim": 64, "causal": 1, "timing": "graph", "plausible": 1}
_SCOPE, _FORM = {"scope": "kv_write+attention"}, {"form": "expanded_192_128"}


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


_ATTENTION = ("batch", "q_heads", "kv_heads", "head_dim")

KINDS: dict[RowKind, KindOfRow] = {
    "decode_attention": KindOfRow(
        sizes=(*_ATTENTION, "kv_len"),
        optional={WINDOW: inf, "timing": "graph"},
        shown=(*_ATTENTION, "kv_len", "kv_dtype"),
        series=("kv_dtype", *_ATTENTION[1:]),
        least_bytes=cache_bytes,
        least_flops=lambda rows: _attention_flops(rows, read_tokens(rows)),
    ),
    "prefill_attention": KindOfRow(
        sizes=(*_ATTENTION, "q_len", "kv_len"),
        optional={"causal": 1, WINDOW: inf, "timing": "graph"},
        shown=(*_ATTENTION, "q_len"),
        series=("kv_dtype", *_ATTENTION[1:]),
        least_bytes=cache_bytes,
        least_flops=lambda rows: _attention_flops(rows, attended_pairs(rows)),
    ),
    "mla_decode": KindOfRow(
        sizes=("batch", "heads", "kv_len"),
        optional=_LATENT | _SCOPE,
        shown=("batch", "heads", "kv_len", "kv_dtype", "scope"),
        least_bytes=_latent_bytes,
        least_flops=lambda rows: _latent_flops(
            rows, rows["kv_len"], 2 * rows["latent_dim"] + rows["rope_dim"]
        ),
    ),
    "mla_prefill": KindOfRow(
        sizes=("batch", "heads", "q_len", "kv_len"),
        optional=_LATENT | _SCOPE | _FORM,
        shown=("batch", "heads", "q_len", "kv_dtype", "form", "scope"),
        least_bytes=_latent_bytes,
        least_flops=lambda rows: _latent_flops(
            rows, attended_pairs(rows), sum(latent_widths(rows))
        ),
    ),
    "mla_module": KindOfRow(
        sizes=("batch", "heads", "q_len"),
        words=("phase",),
        optional=_LATENT | _FORM | {"past_len": 0, "gemm_dtype": "bf16"},
        shown=("phase", "batch", "heads", "q_len", "past_len", "kv_dtype", "gemm_dtype"),
        least_bytes=_output_bytes,
        # At the peak of 16 bits: two bytes of weights for each multiply-add.
        least_flops=lambda rows: rows["batch"] * rows["q_len"] * _output_bytes(rows),
    ),
    "gemm": KindOfRow(
        sizes=("m", "n", "k"),
        # Copies of the weights that the harness cycles through: six, unless a row says otherwise.
        optional={"timing": "graph", "weights_rotated": 6, "host_bound": 0},
        shown=("m", "n", "k", "dtype"),
        series=("dtype", "n", "k"),
        least_bytes=lambda rows: (
            _elements(rows, "dtype") * (rows["m"] * rows["k"] + rows["n"] * rows["k"])
        ),
        least_flops=lambda rows: 2 * rows["m"] * rows["n"] * rows["k"],
    ),
    "moe": KindOfRow(
        sizes=("tokens", *_EXPERTS),
        optional={
            "timing": "graph",
            **dict.fromkeys(("gated", "tensor_parallel", "expert_parallel"), 1),
            "routing": "balanced",
            **dict.fromkeys(VISITS),
            "fits_l2": 0,
            **dict.fromkeys(("plausible", "series_plausible"), 1),
        },
        shown=("tokens", *_EXPERTS, "dtype", "tensor_parallel", "expert_parallel", "routing"),
        series=(*_EXPERTS, "routing"),
        least_bytes=lambda rows: (
            expert_visits(rows)[1] * _expert_weights(rows) * _elements(rows, "dtype")
        ),
        least_flops=lambda rows: 2 * expert_visits(rows)[0] * _expert_weights(rows),
    ),
    "elementwise": KindOfRow(
        sizes=("rows", "width", "bytes"),
        words=("op",),
        shown=("op", "rows", "width"),
        series=("op", "width"),
        least_bytes=lambda rows: rows["bytes"],
    ),
    "all_reduce": KindOfRow(
        sizes=("num_gpus", "message_bytes"),
        optional={"impl": "", "collective": "all_reduce", "timing": "graph"},
        shown=("num_gpus", "message_bytes", "impl"),
    ),
    "shared_prefix_attention": KindOfRow(
        sizes=(*_ATTENTION, "prefix_len", "suffix_len"),
        words=("mode",),
        shown=(
            *("implementation", "timing", "mode", "batch", "q_heads", "kv_heads"),
            *("prefix_len", "suffix_len"),
        ),
        # The prefix once: L2 may serve the other reads.
        least_bytes=lambda rows: (
            (rows["prefix_len"] + rows["batch"] * rows["suffix_len"]) * _token_bytes(rows)
        ),
        least_flops=lambda rows: _attention_flops(rows, rows["prefix_len"] + rows["suffix_len"]),
    ),
    "linear_attention": KindOfRow(
        sizes=("batch", "seq_len", *_LINEAR),
        words=("family", "phase", "op"),
        optional={"d_conv": 4, "state_bytes_per_element": None, "timing": "graph"},
        shown=("family", "phase", "op", "batch", "seq_len", *_LINEAR),
        series=("family", "phase", "op", *_LINEAR),
        least_bytes=_linear_bytes,
    ),
    "sparse_attention": KindOfRow(
        sizes=("heads", "batch", "q_len"),
        words=("kind", "model"),
        optional={
            "past_len": 0,
            "compress_ratio": 1,
            "score_mode": "",
            "gemm_dtype": "bf16",
            "timing": "graph",
        },
        shown=("kind", "model", "heads", "batch", "q_len", "past_len", "kv_dtype", "gemm_dtype"),
        series=("kind", "heads"),
        least_bytes=_sparse_bytes,
    ),
    "decode_step": KindOfRow(
        sizes=("context_tokens", "samples"),
        words=("model", "attention"),
        optional={
            "kv_layout": "copies",
            "execution": "graph",
            "expand_kv": 0,
            "tensor_parallel": 1,
            "weights_dtype": "bf16",
            "status": "ok",
        },
        result="step_ms",
        unit_s=MILLISECOND,
        shown=(
            *("model", "context_tokens", "samples", "attention", "kernel", "kv_layout"),
            "execution",
        ),
        weights=("weights_dtype", "tensor_parallel"),
    ),
    "end_to_end": KindOfRow(
        sizes=("batch", "input_len", "output_len"),
        words=("model",),
        optional={"weight_dtype": "bf16", "tp": 1},
        result="step_ms",
        unit_s=MILLISECOND,
        shown=("model", "batch", "input_len", "output_len"),
        weights=("weight_dtype", "tp"),
    ),
    "serving": KindOfRow(
        sizes=("input_len", "output_len", "concurrency"),
        words=("model",),
        optional={
            "weights_dtype": "bf16",
            "kv_dtype": "bf16",
            "tensor_parallel": 1,
            # Mean lengths as a share of the stated ones: clients may draw them, up to these.
            "length_ratio": 1,
            # Whether they vary: requests of unlike lengths do not stay together.
            "lengths_vary": 0,
        },
        result="tpot_ms",
        unit_s=MILLISECOND,
        shown=(
            *("model", "input_len", "output_len", "concurrency", "weights_dtype"),
            "tensor_parallel",
        ),
        weights=("weights_dtype", "tensor_parallel"),
    ),
    "bandwidth": KindOfRow(
        words=("test",), optional={"working_set_bytes": None}, result="gb_per_s", unit_s=1e9
    ),
    "small_kernels": KindOfRow(
        sizes=("block_size", "bytes_moved"), words=("mode",), optional={}, result="us_per_kernel"
    ),
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
