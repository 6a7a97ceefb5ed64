"""What must hold of the counts, whatever is asked."""

from collections.abc import Sequence
from typing import Any

import pytest
from builders import SLOTS, model, model_shapes, runs, setups, workloads
from hypothesis import assume, given
from hypothesis import strategies as st

from simulator.counts.attention.flash import Flash
from simulator.counts.attention.registry import find_way
from simulator.counts.operation import Operation, Totals, total
from simulator.counts.transformer import decode_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload


def _operations(shape: ModelShape, setup: Setup, work: Workload, **changes: Any) -> list[Operation]:
    return decode_operations(shape, setup.but(**changes), work, resident_blocks=SLOTS)


def _totals(shape: ModelShape, setup: Setup, work: Workload, **changes: Any) -> Totals:
    return total(_operations(shape, setup, work, **changes))


@given(model_shapes(), setups(), workloads())
def test_bifurcated_never_reads_more_kv(shape: ModelShape, setup: Setup, work: Workload) -> None:
    """KV bytes of bifurcated attention are at most standard's; equal where nothing is shared."""
    assume(runs(shape, setup))
    standard = _totals(shape, setup, work, attention="standard").kv_bytes_read
    bifurcated = _totals(shape, setup, work, attention="bifurcated").kv_bytes_read
    assert bifurcated <= standard
    nothing_shared = work.samples == 1 or work.context_tokens == 0
    if nothing_shared and setup.kv_layout != "rebuilt":
        assert bifurcated == standard


@given(model_shapes(), setups(), workloads())
def test_both_kinds_of_attention_have_the_same_flops(
    shape: ModelShape, setup: Setup, work: Workload
) -> None:
    """Splitting changes where keys are read from, not what is computed; kernels neither."""
    assume(runs(shape, setup))
    standard = _totals(shape, setup, work, attention="standard").flops
    assert _totals(shape, setup, work, attention="bifurcated").flops == standard
    assert _totals(shape, setup, work, kernel="ideal").flops == standard


@given(model_shapes(latent=False), setups(execution="eager"), workloads())
def test_flash_moves_less_than_kernels_that_write_logits(
    shape: ModelShape, setup: Setup, work: Workload
) -> None:
    """In plain PyTorch, flash moves no more bytes than einsum or the math path.

    From as many visible keys as a head is wide: with a handful of keys the logits are smaller than
    the copy of the folded queries. One context that standard attention reads by a stride of 0 has
    to be merged with own tokens in float32, which einsum's account has not: four times the keys,
    and split-KV's partial results, which take as much as the logits of a wide head, left out.
    """
    windows = [group.window or 10**9 for group in shape.layer_groups]
    keys = min(work.context_tokens + work.decoded_tokens, *windows)
    merged = setup.attention == "standard" and setup.kv_layout == "shared"
    assume(keys >= shape.head_dim * (4 if merged else 1))
    flash, einsum, math = (
        _totals(shape, setup, work, kernel=kernel) for kernel in ("flash", "einsum", "sdpa_math")
    )
    moved = flash.bytes_read + flash.bytes_written
    if merged:
        operations = _operations(shape, setup, work, kernel="flash")
        moved = sum(_without_splits(operations).values())
    assert moved <= einsum.bytes_read + einsum.bytes_written
    assert moved <= math.bytes_read + math.bytes_written


def _without_splits(operations: Sequence[Operation]) -> dict[str, float]:
    """Return bytes read and written without the partial results of split-KV."""
    totals = total(operations)
    partials = sum(
        operation.bytes_read * operation.repeat
        for operation in operations
        if "combine" in operation.name
    )
    return {"read": totals.bytes_read - partials, "written": totals.bytes_written - partials}


@given(
    model_shapes(),
    setups(kv_layout=st.sampled_from(["copies", "rebuilt"])),
    workloads(),
    st.sampled_from(["context_tokens", "samples", "decoded_tokens", "prompts", "query_tokens"]),
    st.integers(1, 300),
)
def test_more_work_moves_no_fewer_bytes(
    shape: ModelShape, setup: Setup, work: Workload, field: str, more: int
) -> None:
    """Bytes and FLOPs never fall when there is more of anything.

    Split-KV's partial results are left out: as real kernels do, flash splits the keys of a few
    sequences to fill the GPU and stops splitting when there are enough. Where a window holds own
    tokens only, there is no context left to attend to and to merge with.
    """
    assume(runs(shape, setup))
    windows = any(group.window for group in shape.layer_groups)
    assume(not (windows and field == "decoded_tokens" and setup.attention == "bifurcated"))
    grown = work.but(**{field: getattr(work, field) + more})
    before, after = (_operations(shape, setup, item) for item in (work, grown))
    for name in ("flops", "kv_bytes_read", "weight_bytes_read"):
        assert getattr(total(before), name) <= getattr(total(after), name) * (1 + 1e-12)
    less, greater = (_without_splits(operations) for operations in (before, after))
    for name, value in less.items():
        assert value <= greater[name] * (1 + 1e-12)
    if not isinstance(find_way(setup.kernel), Flash):
        for name in ("bytes_read", "bytes_written", "launches"):
            assert getattr(total(before), name) <= getattr(total(after), name) * (1 + 1e-12)


REPLICATED = (
    "embedding",
    "norm",
    "residual",
    "router",
    "expert_choice",
    "expert_gather",
    "expert_sum",
    "all_reduce",
    "all_gather",
    "sampling",
)


@given(
    st.sampled_from([2, 4]),
    st.sampled_from([1, 2, 3]),
    st.booleans(),
    setups(tensor_parallel=1),
    workloads(),
)
def test_ranks_conserve_flops_and_bytes(
    ranks: int, group: int, gated: bool, setup: Setup, work: Workload
) -> None:
    """Where sizes divide, what the ranks do and read together is what one GPU does alone.

    Row products read the whole input and add up the whole output on every rank, so of the bytes
    those of weights and caches are conserved; norms, router and sampling are repeated on each.
    """
    shape = model(
        heads=4 * group,
        kv_heads=4,
        hidden_size=64,
        head_dim=16,
        intermediate_size=96,
        vocab_size=128,
        gated_mlp=gated,
        experts={"count": 6, "per_token": 2, "intermediate_size": 32} if gated else None,
    )
    alone = _operations(shape, setup, work)
    rank = _operations(shape, setup, work, tensor_parallel=ranks)
    for field in ("flops", "kv_bytes_read", "weight_bytes_read"):
        whole, parts = (
            sum(
                getattr(operation, field) * operation.repeat
                for operation in operations
                if not operation.name.endswith(REPLICATED)
            )
            for operations in (alone, rank)
        )
        assert parts * ranks == pytest.approx(whole)
    whole_flops = total(alone).flops
    assert whole_flops <= total(rank).flops * ranks * (1 + 1e-12)
    # Attention moves its queries, keys, logits and outputs by head: all of its bytes divide.
    if not isinstance(find_way(setup.kernel), Flash):
        moved_alone, moved_rank = (
            sum(item.bytes_moved * item.repeat for item in operations if item.kind == "attention")
            for operations in (alone, rank)
        )
        assert moved_rank * ranks == pytest.approx(moved_alone)
