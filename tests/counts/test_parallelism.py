"""A model laid over GPUs: golden numbers by hand, and what all GPUs do together."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from builders import asked, deepseek_v3, llama_3_70b, mixtral_8x7b, step_operations
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.memory import fullest_stage, kv_cache_bytes, weights_bytes
from simulator.counts.operation import Operation, total
from simulator.counts.pieces import all_to_all
from simulator.counts.transformer import check_parallelism, prefill_operations
from simulator.errors import WorkloadError
from simulator.inputs.model import count_parameters
from simulator.inputs.parallelism import Parallelism
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

APART = {"data_parallel": 8, "expert_parallel": 8}


def by_name(operations: list[Operation]) -> dict[str, Operation]:
    """Return operations by name; of norms before different MLPs, the last."""
    return {operation.name: operation for operation in operations}


def test_latent_caches_are_not_copied_in_data_parallel_groups() -> None:
    """DeepSeek-V3 over 8 GPUs: each holds its own 32 of 256 contexts, not all of them."""
    work = Workload(prompts=256, samples=1, context_tokens=4000, decoded_tokens=96)
    of_one = 61 * 4096 * 576 * 2
    assert kv_cache_bytes(deepseek_v3(), Setup(tensor_parallel=8), work) == 256 * of_one
    assert kv_cache_bytes(deepseek_v3(), Setup(**APART), work) == 32 * of_one


def test_experts_of_data_parallel_groups_by_hand() -> None:
    """DeepSeek-V3, 256 tokens over 8 GPUs: 32 of 256 experts each, visited by all tokens.

    256 tokens visit 256 (1 - (31/32)^256) experts. Each GPU sends 32 tokens of 7,168 values, in 8
    bits, to 7 others: with 8 visits over 8 parts no copy to any of them is spared. 16 bits return.
    """
    how = {"weight_dtype": "fp8", "samples": 1, "prompts": 256, **APART}
    found = by_name(step_operations(deepseek_v3(), **how))
    up = found["experts_up"]
    assert (up.m, up.held, up.n, up.repeat) == (256 * 8 / 8, 32, 2 * 2048, 58)
    assert up.groups == pytest.approx(32 * (1 - (31 / 32) ** 256))
    assert found["experts_dispatch"].link_bytes == 32 * 7 * 7168
    assert found["experts_combine"].link_bytes == 32 * 7 * 7168 * 2
    assert {found[f"experts_{way}"].ranks for way in ("dispatch", "combine")} == {8}
    assert not [name for name in found if "all_reduce" in name]


def test_weights_of_data_parallel_groups_by_hand() -> None:
    """Experts are divided by the 8 groups, and each has all else."""
    total, experts = count_parameters(deepseek_v3()).total, 58 * 256 * 3 * 7168 * 2048
    assert weights_bytes(deepseek_v3(), Setup(**APART)) == 2 * (experts / 8 + total - experts)


def test_whole_experts_take_the_work_of_slices() -> None:
    """Mixtral over 4 GPUs: 2 experts have the bytes of a quarter of 8; outputs are summed."""
    shape = mixtral_8x7b()
    split, whole = (
        by_name(step_operations(shape, tensor_parallel=4, expert_parallel=parts, samples=64))
        for parts in (1, 4)
    )
    assert (split["experts_up"].n, whole["experts_up"].n) == (2 * 14336 / 4, 2 * 14336)
    assert whole["experts_up"].m == 64 * 2 / 4
    for name in ("experts_up", "experts_down"):
        assert whole[name].flops == pytest.approx(split[name].flops)
        assert whole[name].weight_bytes_read == pytest.approx(split[name].weight_bytes_read)
    assert whole["mlp_all_reduce"].link_bytes == split["mlp_all_reduce"].link_bytes
    assert set(whole) == set(split)
    setups = (Setup(tensor_parallel=4, expert_parallel=parts) for parts in (1, 4))
    assert len({weights_bytes(shape, setup) for setup in setups}) == 1


def test_a_pipeline_of_two_stages_by_hand() -> None:
    """Llama-3-70B on 2 x 4 GPUs, 16 contexts: 8 go through at a time, and all are held.

    A GPU passes on a quarter of 8 hidden states and residuals of 8192 values, and gathers the rest.
    The first stage has 40 layers and the embedding.
    """
    shape, how = llama_3_70b(), {"tensor_parallel": 4, "pipeline_parallel": 2}
    sizes = {"prompts": 16, "samples": 1, "context_tokens": 1000, "decoded_tokens": 24}
    found = by_name(step_operations(shape, **how, **sizes))
    assert found["qkv_projection"].m == 8
    assert found["stage_send"].link_bytes == 2 * 8 * 8192 * 2 / 4
    assert found["stage_all_gather"].link_bytes == 2 * 8 * 8192 * 2 * 3 / 4
    assert (found["stage_send"].repeat, found["stage_send"].ranks) == (1, 8)
    held = kv_cache_bytes(shape, Setup(**how), Workload(**sizes))
    assert held == 40 * 16 * 1024 * 2 * 2 * 128 * 2
    layer = 8192 * (64 + 2 * 8) * 128 + 8192 * 8192 + 3 * 8192 * 28672
    norms = (2 * 40 + 1) * 8192
    assert weights_bytes(shape, Setup(**how)) == 2 * ((40 * layer + 128256 * 8192) / 4 + norms)


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        (deepseek_v3(), APART),
        (deepseek_v3(), {"data_parallel": 8}),
        (mixtral_8x7b(), {"data_parallel": 4, "expert_parallel": 2}),
        (llama_3_70b(), {"pipeline_parallel": 4}),
        (mixtral_8x7b(), {"pipeline_parallel": 2, "data_parallel": 4, "expert_parallel": 4}),
    ],
    ids=str,
)
def test_all_gpus_together_do_the_work_of_one(shape: Any, how: dict[str, int]) -> None:
    """Nothing is done twice where no heads are split: FLOPs and KV reads add up to one GPU's."""
    sizes = {"prompts": 64, "samples": 2, "context_tokens": 512}
    one, part = (total(step_operations(shape, **each, **sizes)) for each in ({}, how))
    gpus = Parallelism(**how).gpus
    assert gpus * part.flops == pytest.approx(one.flops, rel=1e-12)
    assert gpus * part.kv_bytes_read == pytest.approx(one.kv_bytes_read, rel=1e-12)
    held, all_held = (
        kv_cache_bytes(shape, asked(**each)[0], asked(**sizes)[1]) for each in (how, {})
    )
    assert gpus * held == pytest.approx(all_held)


@pytest.mark.parametrize(("experts", "parts", "visits"), [(8, 8, 2), (8, 4, 1), (12, 4, 3)])
def test_copies_of_a_token_are_those_of_every_choice(experts: int, parts: int, visits: int) -> None:
    """Every set of experts that a token of GPU 0 may visit, one copy for each that is elsewhere."""
    each = experts // parts
    copies = [
        sum(expert // each != 0 for expert in chosen)
        for chosen in combinations(range(experts), visits)
    ]
    asked_of = deepseek_v3().experts
    assert asked_of is not None
    few = asked_of.but(count=experts, per_token=visits)
    how = {"data_parallel": parts, "expert_parallel": parts, "prompts": parts, "samples": 1}
    found = by_name(step_operations(deepseek_v3().but(experts=few), **how))
    sent = found["experts_combine"].link_bytes
    assert sent == pytest.approx(np.mean(copies) * 7168 * 2)


@given(st.integers(1, 40), st.integers(1, 16))
def test_the_fullest_group_has_no_prompt_too_few(prompts: int, groups: int) -> None:
    """Dealt out in turn, the first group gets most; numbers and arrays agree."""
    dealt = max(len(range(first, prompts, groups)) for first in range(groups))
    how = Parallelism(data_parallel=groups)
    assert how.held(Workload(prompts=prompts)).prompts == dealt
    grid = how.held(Workload.grid(prompts=np.array([float(prompts)])))
    assert grid.prompts == [dealt]


def test_a_tree_is_divided_from_its_root() -> None:
    """A system prompt is held by all groups; its 8 problems are divided, then their answers."""
    work = Workload(tree="system=2K,problem=512x8,draft=64x4")
    branches = [
        [level.branches for level in Parallelism(data_parallel=groups).held(work).tree]
        for groups in (2, 8, 16)
    ]
    assert branches == [[1, 4, 4], [1, 1, 4], [1, 1, 2]]
    assert Parallelism(data_parallel=16).held(work).prompts == 2


def test_a_prefill_goes_through_all_stages_at_once() -> None:
    """8 prompts over 2 groups of 2 stages: 4 prompts in each group, in one part."""
    setup, work = asked(data_parallel=2, pipeline_parallel=2, prompts=8, context_tokens=128)
    found = by_name(prefill_operations(mixtral_8x7b(), setup, work))
    assert found["qkv_projection"].m == 4 * 128


def test_stages_have_an_equal_share_of_each_kind_of_layer() -> None:
    """DeepSeek-V3 in 4 stages: 1 of 3 dense layers and 15 of 58 with experts, 16 of 61."""
    stage = fullest_stage(deepseek_v3(), 4)
    assert ([group.count for group in stage.layer_groups], stage.layers) == ([1, 15], 16)


def test_one_gpu_sends_nothing() -> None:
    """No exchange among one."""
    assert all_to_all("experts", sent_bytes=1, ranks=1) == []


@pytest.mark.parametrize(
    ("shape", "how", "says"),
    [
        (llama_3_70b(), {"expert_parallel": 2}, "expert_parallel = 2: .* has no experts"),
        (mixtral_8x7b(), {"expert_parallel": 4}, "does not divide the 1 GPUs of tensor_parallel"),
        (
            mixtral_8x7b(),
            {"data_parallel": 16, "expert_parallel": 16},
            "does not divide the 8 experts",
        ),
        (llama_3_70b(), {"pipeline_parallel": 81}, "81 is more than the 80 layers"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(shape: Any, how: dict[str, int], says: str) -> None:
    """One clear line."""
    with pytest.raises(WorkloadError, match=says):
        check_parallelism(shape, Setup(**how))
