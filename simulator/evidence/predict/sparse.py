"""Predict rows of sparse attention: kernels of the indexer and of attention, and whole modules."""

from dataclasses import replace
from functools import cache
from typing import Any, cast

import pandas as pd

from simulator.counts.attention import sparse
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation
from simulator.counts.pieces import Shard
from simulator.counts.transformer import attention_input, attention_output
from simulator.evidence.predict.groups import library_of, model, numbers, replayed
from simulator.evidence.predict.latent import OUTSIDE, absorbed_shape
from simulator.evidence.rows.kinds import VALUES
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype, Precision, is_low_precision
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import Indexer, LatentAttention, ModelShape
from simulator.inputs.setup import Setup
from simulator.timing.limits import resident_blocks

# A module whose layer attends to the selection of an earlier layer.
REUSES = "skip_indexer"
# Scores that all tie take the selection longest, and no model makes them.
TIES = "flat"
# SGLang attends to all tokens of a short prefill.
DENSE = "dense_mha"
# Hosts launch a prefill's kernels one by one, which takes 0.45 to 1.5 ms.
HOST_BOUND_S = 3e-3
# SGLang's modules take 0.25 to 1.3 ms for 1,024 sequences, whatever the context, and 0.2 ms at most
# for 512: no graph holds so many.
LARGEST_GRAPH = 512
# Its prefills of more sequences over long caches take up to four times as long as their kernels.
MOST_COPIED = 2
# SGLang normalises the cached vector on a second stream, and finds the weights with the key
# (recalled from its code).
BESIDE = ("kv_norm", "index_weights")
# Over a cache of 8 bits its kernel on Blackwell also rotates (aiconfigurator's collector).
ROTATED = ("rotary",)
# Its modules' scores tie: they take 20 and 33 us longer for each doubling from 32K tokens, like the
# selection of such scores, which takes twice as long as that of others.
TIED_STEPS = 2
# Query tokens that a decode step may have, of a sequence and in all; rows of its kernel have up to
# 8,192, whose time on H100 grows with their square.
MOST_CHECKED, MOST_QUERIES = 32, 2048
# Kernels that take top_k positions of every query, however few tokens it has, as their flat rows
# show: FlashMLA's for caches of 8 bits, which expands them to 16, and its prefill on Blackwell.
PADS, PADS_16_BITS = "FLASHMLA", "flash_mla_sparse_fwd"
# From so many heads vLLM expands a cache of 8 bits before a prefill: rows of H100 show the step.
EXPANDS_HEADS = 32


@cache
def _models() -> dict[str, ModelShape]:
    """Return the models whose attention was timed, by a part of their names in rows."""
    v32 = model("deepseek-v3.2")
    return {
        "DeepSeek-V3.2": v32,
        "GLM-5": model("glm-5"),
        # The indexer alone: it scores compressed tokens as others score tokens.
        "DeepSeek-V4": v32.but(indexer=Indexer(heads=64, dim=128, top_k=1024)),
    }


def _model(row: "pd.Series[Any]") -> ModelShape | None:
    """Return the model of a row, None if it is not known."""
    names = (shape for name, shape in _models().items() if name in str(row["model"]))
    return next(names, None)


def unknown(row: "pd.Series[Any]") -> str:
    """Return why rows like this cannot be predicted; empty if they can."""
    kind, known = str(row["kind"]), VALUES["sparse_kinds"]
    if kind.removesuffix(f"_{REUSES}").removesuffix("_module") not in known:
        if kind.startswith("dsv4"):
            return "the sizes of DeepSeek-V4's compressed caches are not known"
        return f"kind {kind!r} is not one of {', '.join(known)}"
    if _model(row) is None:
        return f"model {row['model']!r} is not one of {', '.join(_models())}"
    if TIES in str(row["score_mode"]):
        return "scores that all tie take the selection longer than those of any model"
    return "the prefill is short, and attends to all its tokens" if DENSE in row["kernel"] else ""


def not_kernel_times(rows: pd.DataFrame) -> dict[Any, str]:
    """Return the rows, by label, whose time is not that of a step's kernel."""
    kinds = rows["kind"].astype(str)
    prefill = kinds.str.contains("context") & (rows["time_s"] < HOST_BOUND_S)
    large = kinds.str.contains("generation") & (rows["batch"] > LARGEST_GRAPH)
    sglang = rows["framework"].astype(str).str.startswith("sglang")
    host = "launched one by one and too short: the host's time, not the kernel's"
    copied = kinds.str.contains("context") & sglang & (rows["batch"] > MOST_COPIED)
    copies = (
        "the library also copies the cached keys of many sequences together, in a time not known"
    )
    many = (rows["q_len"] > MOST_CHECKED) | (rows["batch"] * rows["q_len"] > MOST_QUERIES)
    most = f"{MOST_CHECKED} of a sequence, {MOST_QUERIES} in all"
    more = f"more query tokens than a decode step has: {most}"
    return {
        **dict.fromkeys(rows.index[copied], copies),
        **dict.fromkeys(rows.index[prefill | (large & sglang)], host),
        **dict.fromkeys(rows.index[many & kinds.str.contains("paged")], more),
    }


def as_read(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the format of the cache that their attention reads."""
    prefill = rows["kind"].astype(str).str.contains("context")
    expanded = prefill & (rows["framework"] == "vllm") & (rows["heads"] >= EXPANDS_HEADS)
    return rows.assign(kv_dtype=rows["kv_dtype"].mask(expanded, "bf16"))


def precision(row: "pd.Series[Any]") -> Precision:
    """Return the format of the cache of a module, if its attention has constants of its own."""
    low = is_low_precision(DTYPE_BYTES[row["kv_dtype"]])
    return "fp8" if low and is_module(row) else ""


def is_module(row: "pd.Series[Any]") -> bool:
    """Return whether a row is of a whole module, in a decode step or a prefill."""
    return any(phase in str(row["kind"]) for phase in ("generation", "context"))


def operations(rows: pd.DataFrame, gpu: HardwareProfile) -> list[Operation]:
    """Return the kernels of rows of one kind and model, replayed back to back."""
    first = rows.iloc[0]
    known, kind = cast("ModelShape", _model(first)), str(first["kind"])
    indexer, shape = cast("Indexer", known.indexer), _shape(rows, known, gpu)
    if is_module(first):
        return _module(rows, known, shape)
    if "paged" in kind:
        # The kernel of decoding: queries of a sequence see the tokens before them.
        mean = numbers(rows, "past_len") + (numbers(rows, "q_len") + 1) / 2
        tokens = mean / numbers(rows, "compress_ratio")
        scored, _ = sparse.scores(shape._replace(context_tokens=tokens), indexer)
        return [replayed(scored)]
    scored, selection, attended = _prefill(rows, shape, indexer)
    if "logits" in kind:
        return [replayed(scored)]
    return [replayed(selection) if "topk" in kind else attended]


def _shape(rows: pd.DataFrame, known: ModelShape, gpu: HardwareProfile) -> AttentionShape:
    """Return the attention of a layer over all cached tokens, in the absorbed form."""
    latent, first = cast("LatentAttention", known.latent), rows.iloc[0]
    # FlashMLA's kernel for prefill takes caches of 16 bits alone.
    kv_dtype: Dtype = "fp8" if precision(first) else "bf16"
    queries = numbers(rows, "q_len")
    return absorbed_shape(
        rows,
        latent.kv_rank + latent.rope_dim,
        latent.kv_rank,
        kv_dtype,
        query_tokens=queries,
        context_tokens=numbers(rows, "past_len") + queries,
        resident_blocks=resident_blocks(gpu),
    )


def _module(rows: pd.DataFrame, known: ModelShape, shape: AttentionShape) -> list[Operation]:
    """Return a whole attention module: projections, indexer, selection, attention and output."""
    first, batch, queries = rows.iloc[0], numbers(rows, "batch"), numbers(rows, "q_len")
    latent, indexer = cast("LatentAttention", known.latent), cast("Indexer", known.indexer)
    formats = {"weight_dtype": first["gemm_dtype"], "kv_dtype": first["kv_dtype"]}
    shard = Shard(
        model=known.but(heads=shape.heads), setup=Setup.read(formats), tokens=batch * queries
    )
    phase = _prefill if "context" in str(first["kind"]) else _decode
    timed = [*_around(shard, indexer, latent, first), *phase(rows, shape, indexer)]
    if REUSES in str(first["kind"]):
        timed = [item for item in timed if not item.name.startswith("index")]
    moved = sum(item.bytes_moved for item in timed)
    # A replay finds everything in L2 if it all fits.
    return [item if item.kind == "sparse_prefill" else replayed(item, moved) for item in timed]


def _around(
    shard: Shard, indexer: Indexer, latent: LatentAttention, row: "pd.Series[Any]"
) -> list[Operation]:
    """Return the operations of a module around its scores and its attention, as engines do them."""
    listed = [
        *attention_input(shard, absorbed=True),
        *attention_output(shard, absorbed=True),
        *sparse.projections(shard, indexer, latent),
    ]
    outside = [OUTSIDE]
    if library_of(str(row["framework"])) == "sglang":
        outside += BESIDE
        if precision(row):
            outside += ROTATED
    return [item for item in listed if item.name not in outside]


def _decode(rows: pd.DataFrame, shape: AttentionShape, indexer: Indexer) -> list[Operation]:
    """Return a decode step's scores, selection and attention, as a library's kernels do them."""
    first = rows.iloc[0]
    *scored, selection = sparse.scores(shape, indexer)
    if library_of(str(first["framework"])) == "sglang":
        selection = replace(selection, serial_steps=selection.serial_steps * TIED_STEPS)
    return [*scored, selection, _padded(sparse.attention(shape, indexer), first, indexer)]


def _prefill(rows: pd.DataFrame, shape: AttentionShape, indexer: Indexer) -> list[Operation]:
    """Return a prefill's scores, selection and attention."""
    batch, queries, past = (numbers(rows, name) for name in ("batch", "q_len", "past_len"))
    *indexing, attended = sparse.prefill(shape, indexer, prompts=batch, tokens=queries, before=past)
    return [*indexing, _padded(attended, rows.iloc[0], indexer)]


def _padded(attended: Operation, row: "pd.Series[Any]", indexer: Indexer) -> Operation:
    """Return attention as a kernel does it that takes ``top_k`` positions of every query."""
    walks = row["kernel"] == PADS_16_BITS
    if not (walks or (attended.low_precision_cache and PADS in str(row["kernel"]))):
        return attended
    steps = indexer.top_k / sparse.GATHERED_KEYS
    padded = attended.tile_rows_per_row * steps / attended.serial_steps
    # FlashMLA's other kernel splits the positions over thread blocks.
    serial = steps if walks else attended.serial_steps
    return replace(attended, tile_rows_per_row=padded, serial_steps=serial)
