"""What must hold of prefix trees, whatever their levels and whichever of them are split."""

import math
from typing import Any

import numpy as np
import pytest
from builders import SLOTS, model_shapes, setups, without, workloads
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulator.counts.memory import kv_cache_bytes, memory
from simulator.counts.operation import Totals, total
from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.tree import Level, read_tree, tree_text
from simulator.inputs.workload import Workload


@st.composite
def levels_of_trees(draw: st.DrawFn, least: int = 1) -> tuple[Level, ...]:
    """Draw the levels of a tree."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.one_of(st.sampled_from([1, 255, 256, 257, 4096]), st.integers(1, 6000)),
                st.sampled_from([1, 1, 2, 5, 70]),
                st.booleans(),
            ),
            min_size=least,
            max_size=4,
        )
    )
    return tuple(
        Level(name=f"l{index}", tokens=tokens, branches=branches, split=split)
        for index, (tokens, branches, split) in enumerate(drawn)
    )


@st.composite
def tree_workloads(draw: st.DrawFn, least: int = 1) -> Workload:
    """Draw the sizes of a step over a tree."""
    return Workload(**_besides(draw(workloads())), tree=draw(levels_of_trees(least)))


# Kernels that have a form for trees.
SETUPS = setups(kernel=st.sampled_from(["ideal", "flash"]))


def _besides(work: Workload, *more: str) -> dict[str, Any]:
    """Return the sizes that a tree does not say."""
    return without(work, "tree", "context_tokens", "prompts", *more)


def totals_of(
    shape: ModelShape, setup: Setup, work: Workload, attention: Any = "bifurcated"
) -> Totals:
    """Sum a step."""
    return total(decode_operations(shape, setup.under(attention), work, resident_blocks=SLOTS))


def split_none(work: Workload) -> Workload:
    """Return the tree with no level split."""
    return work.splitting([])


@given(model_shapes(), SETUPS, tree_workloads(), st.data())
def test_splitting_a_level_never_reads_more_kv(
    shape: ModelShape, setup: Setup, work: Workload, data: st.DataObject
) -> None:
    """Each further level read once per node takes KV bytes away, from standard's down."""
    names = [level.name for level in work.tree]
    order = data.draw(st.permutations(names))
    read = [
        totals_of(shape, setup, work.splitting(order[:count])).kv_bytes_read
        for count in range(len(names) + 1)
    ]
    assert read == sorted(read, reverse=True)
    copies = setup.but(kv_layout="copies")
    assert read[0] == totals_of(shape, copies, work, "standard").kv_bytes_read


@given(model_shapes(), SETUPS, tree_workloads())
def test_every_choice_of_levels_has_the_same_flops(
    shape: ModelShape, setup: Setup, work: Workload
) -> None:
    """Splitting changes where keys are read from, not what is computed."""
    standard = totals_of(shape, setup, work, "standard").flops
    assert totals_of(shape, setup, work).flops == standard
    assert totals_of(shape, setup, split_none(work)).flops == standard


@given(model_shapes(), SETUPS, tree_workloads())
def test_the_whole_tree_reads_each_node_once(
    shape: ModelShape, setup: Setup, work: Workload
) -> None:
    """All levels split: the KV bytes read are those stored (equation 6, for every level)."""
    whole = work.splitting([level.name for level in work.tree])
    stored = kv_cache_bytes(shape, setup.under("bifurcated"), whole)
    assert totals_of(shape, setup, whole).kv_bytes_read == stored


@given(model_shapes(), SETUPS, workloads())
def test_one_level_is_the_two_level_case(shape: ModelShape, setup: Setup, work: Workload) -> None:
    """A tree of one level has the operations, prefill and memory of a context and prompts."""
    context = max(1, work.context_tokens)
    plain = work.but(context_tokens=context)
    level = Workload(**_besides(work), tree=f"{context}x{work.prompts}")
    assert (level.context_tokens, level.prompts) == (context, work.prompts)
    pairs = [
        [decode_operations(shape, setup, item, resident_blocks=SLOTS) for item in (plain, level)],
        [prefill_operations(shape, setup, item) for item in (plain, level)],
        [
            memory(shape, setup, item, card_bytes=1e9, resident_blocks=SLOTS)
            for item in (plain, level)
        ],
    ]
    for one, other in pairs:
        assert one == other


@given(model_shapes(), SETUPS, tree_workloads())
def test_nothing_branches_and_nothing_is_saved(
    shape: ModelShape, setup: Setup, work: Workload
) -> None:
    """One sample below one node of each level reads the same, split or not."""
    levels = tuple(level.but(branches=1) for level in work.tree)
    alone = Workload(**_besides(work, "samples"), tree=levels, samples=1)
    copies = setup.but(kv_layout="copies")
    standard = totals_of(shape, copies, alone, "standard").kv_bytes_read
    assert totals_of(shape, setup, alone).kv_bytes_read == standard


@given(
    model_shapes(),
    SETUPS,
    tree_workloads(),
    st.data(),
    st.sampled_from(["tokens", "branches"]),
    st.integers(1, 300),
)
def test_a_larger_tree_moves_no_fewer_bytes(
    shape: ModelShape, setup: Setup, work: Workload, data: st.DataObject, field: str, more: int
) -> None:
    """KV bytes read and stored, and FLOPs, never fall when a level grows in length or width.

    A sliding window sees the same tokens of a longer tree, so fewer of those that many share.
    """
    assume(field == "branches" or not any(group.window for group in shape.layer_groups))
    index = data.draw(st.integers(0, len(work.tree) - 1))
    levels = list(work.tree)
    grown = levels[index].but(**{field: getattr(levels[index], field) + more})
    levels[index] = grown
    larger = Workload(**_besides(work), tree=levels)
    for attention in ("standard", "bifurcated"):
        before, after = (totals_of(shape, setup, item, attention) for item in (work, larger))
        assert before.kv_bytes_read <= after.kv_bytes_read * (1 + 1e-12)
        assert before.flops <= after.flops * (1 + 1e-12)
        stored = [kv_cache_bytes(shape, setup.under(attention), item) for item in (work, larger)]
        assert stored[0] <= stored[1]


@given(model_shapes(), SETUPS, tree_workloads())
def test_stored_once_takes_no_more_memory_or_prefill(
    shape: ModelShape, setup: Setup, work: Workload
) -> None:
    """A stored tree holds, and its prefill computes, at most what whole prompts would."""
    stored = setup.under("bifurcated")
    copies = setup.but(attention="standard", kv_layout="copies")
    assert kv_cache_bytes(shape, stored, work) <= kv_cache_bytes(shape, copies, work)
    flops = [total(prefill_operations(shape, how, work)).flops for how in (stored, copies)]
    assert flops[0] <= flops[1] * (1 + 1e-12)


@settings(max_examples=40)
@given(model_shapes(), SETUPS, tree_workloads(2), st.data())
def test_a_grid_of_trees_counts_each_tree(
    shape: ModelShape, setup: Setup, work: Workload, data: st.DataObject
) -> None:
    """Arrays of tokens, branches and samples give at every point what its tree gives alone."""
    draw = data.draw
    tokens = [draw(st.lists(st.integers(1, 5000), min_size=2, max_size=2)) for _ in work.tree]
    branches = [draw(st.lists(st.integers(1, 6), min_size=2, max_size=2)) for _ in work.tree]
    samples = draw(st.lists(st.integers(1, 300), min_size=2, max_size=2))
    levels = tuple(
        level.but(tokens=np.array(long, float), branches=np.array(wide, float))
        for long, wide, level in zip(tokens, branches, work.tree, strict=True)
    )
    fields = _besides(work, "samples")
    grid = Workload.grid(
        **fields,
        tree=levels,
        samples=np.array(samples, float),
        context_tokens=sum(level.tokens for level in levels),
        prompts=math.prod(level.branches for level in levels),
    )
    together = total(decode_operations(shape, setup, grid, resident_blocks=SLOTS))
    prefill = total(prefill_operations(shape, setup, grid))
    held = memory(shape, setup, grid, card_bytes=1e9, resident_blocks=SLOTS)
    for index in range(2):
        point = Workload(
            **fields,
            samples=samples[index],
            tree=[
                level.but(tokens=long[index], branches=wide[index])
                for long, wide, level in zip(tokens, branches, work.tree, strict=True)
            ],
        )
        alone = total(decode_operations(shape, setup, point, resident_blocks=SLOTS))
        for field in ("flops", "bytes_read", "bytes_written", "kv_bytes_read", "launches"):
            assert _at(getattr(together, field), index) == pytest.approx(getattr(alone, field))
        flops = total(prefill_operations(shape, setup, point)).flops
        assert _at(prefill.flops, index) == pytest.approx(flops)
        needs = memory(shape, setup, point, card_bytes=1e9, resident_blocks=SLOTS)
        assert _at(held.kv_bytes, index) == needs.kv_bytes
        assert _at(held.workspace_bytes, index) == pytest.approx(needs.workspace_bytes)


def _at(values: Any, index: int) -> float:
    return float(np.broadcast_to(values, 2)[index])


@given(levels_of_trees())
def test_a_tree_survives_its_text(levels: tuple[Level, ...]) -> None:
    """Written and read back a tree is the same."""
    assert read_tree(tree_text(levels)) == levels
