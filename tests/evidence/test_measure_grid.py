"""Which cells a run has, in which order, and what a dry run says of them."""

from dataclasses import replace
from itertools import product

import pytest

from simulator.counts.operation import total
from simulator.errors import MeasurementError
from simulator.evidence.kernels import EXTERNAL_KERNELS, KERNELS
from simulator.evidence.measure import grid
from simulator.evidence.measure.cells import AttentionCell, GemmCell, Selection, StepCell
from simulator.evidence.measure.predict import Repeats, predict, preview, rotation, wall_s
from simulator.inputs.hardware import load_hardware
from simulator.inputs.scenario import load_scenario, scenario_files
from simulator.timing.constants import rates

MIB = 2**20


@pytest.fixture(scope="module")
def default_plan() -> Selection:
    """The grid a user gets who asks for nothing."""
    return grid.default_grid()


def test_every_cell_has_a_name_of_its_own(default_plan: Selection) -> None:
    """Names are keys of the rows: no two cells share one, and none holds a comma."""
    keys = [cell.key for cell in default_plan.cells]
    assert len(set(keys)) == len(keys)
    assert not any("," in key or "\n" in key for key in keys)


def test_the_default_grid_covers_the_papers_regime(default_plan: Selection) -> None:
    """7B shapes with 32, 8 and 1 KV heads, 1K to 32K, 1 to 256 samples, all kernels, both modes."""
    kernels = [cell for cell in default_plan.cells if isinstance(cell, AttentionCell)]
    assert {cell.kernel for cell in kernels} == set(KERNELS)
    assert {cell.kv_heads for cell in kernels} == {32, 8, 1}
    assert (min(c.context_tokens for c in kernels), max(c.context_tokens for c in kernels)) == (
        1024,
        32768,
    )
    assert (min(c.samples for c in kernels), max(c.samples for c in kernels)) == (1, 256)
    steps = [cell for cell in default_plan.cells if isinstance(cell, StepCell)]
    assert {cell.mode for cell in steps} == {"graph", "eager"}
    assert {cell.model.kv_heads for cell in steps} == {32, 8, 1}


@pytest.mark.parametrize("name", ["h100-sxm", "a100-sxm-80gb"])
def test_the_default_grid_takes_less_than_25_minutes(default_plan: Selection, name: str) -> None:
    """The guessed time of the whole default grid on one GPU, with what does not fit left out."""
    result = preview(default_plan, gpu=rates(load_hardware(name)), device="cuda", done=())
    assert 300 < result.wall_s < 25 * 60


def test_the_most_wanted_cells_come_first(default_plan: Selection) -> None:
    """After the stored context, bandwidth, then the paper's 8K of context before any other."""
    after = [cell for cell in default_plan.cells if cell.stage >= 0]
    assert after[0].kind == "memory"
    calls = [cell for cell in after if isinstance(cell, AttentionCell | StepCell)]
    first_other = next(i for i, cell in enumerate(calls) if cell.context_tokens != 8192)
    # Standard and bifurcated, kernels and whole steps, of all three models, at several samples.
    early = calls[:first_other]
    assert len({cell.samples for cell in early}) >= 5
    assert {cell.kind for cell in early} == {"attention", "step"}


def test_the_stored_context_comes_first(default_plan: Selection) -> None:
    """Flash over expanded and copied keys, 8 and 32 KV heads, timed in pairs, within minutes."""
    first = [cells for cells in default_plan.groups if cells[0].stage < 0]
    assert default_plan.groups[: len(first)] == first
    found = set()
    for expanded_or_copied in first:
        assert {(cell.kernel, cell.mode) for cell in expanded_or_copied} == {
            ("standard_flash", "graph"),
            ("standard_flash_expanded", "graph"),
        }
        cell = expanded_or_copied[0]
        found.add((cell.context_tokens, cell.samples, cell.kv_heads))
    assert found == set(product((8192, 16384, 32768), (4, 16, 64), (8, 32)))
    gpu = rates(load_hardware("h100-sxm"))
    few = replace(default_plan, cells=tuple(cell for cells in first for cell in cells))
    assert preview(few, gpu=gpu, device="cuda", done=()).wall_s < 180


def test_cells_of_one_size_are_timed_together(default_plan: Selection) -> None:
    """A group holds all kernels and modes of one size, so that drift hits all of them."""
    group = next(
        cells
        for cells in default_plan.groups
        if isinstance(cells[0], AttentionCell)
        and (cells[0].samples, cells[0].context_tokens, cells[0].kv_heads) == (16, 8192, 1)
    )
    assert {cell.kernel for cell in group} == set(KERNELS) - {"bifurcated_flex"}
    assert {cell.mode for cell in group} == {"graph", "eager"}
    assert len({(cell.samples, cell.context_tokens, cell.kv_heads) for cell in group}) == 1


@pytest.mark.parametrize("name", sorted(scenario_files()))
def test_every_scenario_can_be_measured_or_says_why_not(name: str) -> None:
    """Each shipped scenario gives cells, or a reason for every point it has none for."""
    plan = grid.scenario_grid(load_scenario(name))
    assert plan.cells or plan.skipped
    assert all("\n" not in reason for reason in plan.skipped)


def test_tensor_parallel_scenarios_run_one_ranks_heads() -> None:
    """Kernels of a model split over GPUs have one GPU's heads; whole steps are left out."""
    plan = grid.scenario_grid(load_scenario("agentic-rl"))  # qwen2.5-32b, 4 GPUs: 40 and 8 heads
    kernels = [cell for cell in plan.cells if isinstance(cell, AttentionCell)]
    assert {(cell.heads, cell.kv_heads) for cell in kernels} == {(10, 2)}
    assert not any(isinstance(cell, StepCell) for cell in plan.cells)
    assert any("tensor_parallel = 4" in reason for reason in plan.skipped)


def test_choosing_a_kernel_that_does_not_exist_names_the_nearest() -> None:
    """A typing error in a kernel's name is one line with the right one."""
    with pytest.raises(MeasurementError, match="did you mean 'bifurcated_flash'"):
        grid.select(grid.cpu_grid(), kernels=["bifurcated_flsh"])


def test_kernels_of_other_libraries_are_measured_where_they_are_asked_for() -> None:
    """At every point of our own bifurcated flash, in both modes; in no plan otherwise."""
    kinds = {(each.attention, each.layout) for each in EXTERNAL_KERNELS.values()}
    assert kinds == {("bifurcated", "paged")}
    plan = grid.default_grid()
    chosen = grid.select(plan, kinds=["attention"], kernels=["bifurcated_flash", "vllm_cascade"])
    ours, theirs = (
        {
            (cell.group, cell.mode, cell.stage)
            for cell in chosen.cells
            if isinstance(cell, AttentionCell) and cell.kernel == name
        }
        for name in ("bifurcated_flash", "vllm_cascade")
    )
    assert ours == theirs
    assert len(chosen.cells) == 2 * len(ours)
    assert not EXTERNAL_KERNELS.keys() & {getattr(cell, "kernel", "") for cell in plan.cells}


def test_kernels_of_other_libraries_take_16_bits() -> None:
    """Asked for float32, one line says what they take."""
    with pytest.raises(MeasurementError, match="takes bf16 or fp16, not fp32: --dtype"):
        grid.select(grid.cpu_grid(), kernels=["vllm_cascade"])


def test_predicted_memory_of_another_librarys_kernel_holds_pages_and_workspace() -> None:
    """65 tokens of context fill five pages of 16 tokens; FlashInfer's plan has buffers."""
    sizes = {"heads": 8, "kv_heads": 8, "head_dim": 64, "context_tokens": 65, "samples": 4}
    ours, theirs = (
        AttentionCell(kernel=kernel, decoded_tokens=17, **sizes).call_bytes()
        for kernel in ("vllm_cascade", "flashinfer_cascade")
    )
    assert ours[0] == theirs[0] == 2 * (80 + 4 * 32) * 8 * 64 * 2 + 4 * 8 * 64 * 2
    assert theirs[1] - ours[1] == (128 + 2 * 8) * MIB


def test_another_librarys_kernel_reads_what_bifurcated_attention_reads() -> None:
    """Context once, own tokens once; the merge is one kernel, where plain PyTorch takes several."""
    sizes = {"heads": 32, "kv_heads": 8, "head_dim": 128, "context_tokens": 8192, "samples": 16}
    shipped, plain = (
        AttentionCell(kernel=kernel, decoded_tokens=64, **sizes).operations(264)
        for kernel in ("vllm_cascade", "bifurcated_flash")
    )
    cache = 2 * (8192 + 16 * 64) * 8 * 128 * 2
    assert total(shipped).kv_bytes_read == total(plain).kv_bytes_read == cache
    assert total(shipped).flops == total(plain).flops
    assert sum(item.launches for item in shipped if "merge" in item.name) == 1


def test_query_tokens_are_chosen_in_place_of_the_plans_own() -> None:
    """Kernels and steps once for each, named after it; what cannot take several is named."""
    plan = grid.select(grid.cpu_grid(), query_tokens=(1, 4))
    own = [cell.key for cell in grid.cpu_grid().cells]
    assert {cell.key for cell in plan.cells} > set(own)
    cells = [cell for cell in plan.cells if isinstance(cell, AttentionCell | StepCell)]
    several = {cell.kernel for cell in cells if cell.query_tokens == 4}
    assert several == set(KERNELS) - {"bifurcated_flex"}
    assert all((" n4 " in cell.key) == (cell.query_tokens == 4) for cell in cells)
    assert plan.skipped == ("query_tokens = 4: bifurcated_flex takes one query token",)
    with pytest.raises(MeasurementError, match="9: a sample of decoded_tokens = 8 does not hold"):
        grid.select(grid.cpu_grid(), kinds=["attention"], query_tokens=[9])


def test_a_scenario_of_several_query_tokens_is_measured() -> None:
    """One, four and eight tokens of each sample, in kernels, steps and products alike."""
    plan = grid.scenario_grid(load_scenario("speculative-samples"))
    cells = [cell for cell in plan.cells if isinstance(cell, AttentionCell | StepCell)]
    assert {(cell.kind, cell.query_tokens) for cell in cells} == {
        (kind, tokens) for kind in ("attention", "step") for tokens in (1, 4, 8)
    }
    rows = {cell.m for cell in plan.cells if isinstance(cell, GemmCell)}
    assert rows >= {cell.samples * cell.query_tokens for cell in cells}
    assert any("bifurcated_flex takes one query token" in reason for reason in plan.skipped)


def test_several_query_tokens_read_the_cache_once() -> None:
    """Four times the FLOPs, the same bytes of cache, four times the queries in memory."""
    sizes = {"heads": 32, "kv_heads": 8, "head_dim": 128, "context_tokens": 8192, "samples": 16}
    one, four = (
        AttentionCell(kernel="bifurcated_flash", decoded_tokens=64, query_tokens=tokens, **sizes)
        for tokens in (1, 4)
    )
    counted = [total(cell.operations(264)) for cell in (one, four)]
    assert counted[1].flops == 4 * counted[0].flops
    assert counted[1].kv_bytes_read == counted[0].kv_bytes_read
    queries = 16 * 32 * 128 * 2
    assert four.call_bytes()[0] - one.call_bytes()[0] == 3 * queries


def test_choosing_nothing_is_an_error_with_the_reason() -> None:
    """A scenario of which nothing can be measured says why."""
    plan = grid.scenario_grid(load_scenario("mla-deepseek-v3"))
    with pytest.raises(MeasurementError, match="latent"):
        grid.select(plan)


def test_rotation_gets_past_the_l2() -> None:
    """Rotated buffers together are four times the L2, at least twice where there are 256."""
    for size in (MIB // 2, MIB, 7 * MIB, 49 * MIB, 3000 * MIB):
        sets = rotation(size, 50 * MIB)
        assert sets * size >= (2 if sets == 256 else 4) * 50 * MIB
        assert sets == 1 or (sets - 1) * size < 4 * 50 * MIB


def test_predicted_memory_holds_the_caches() -> None:
    """Copies for 16 samples of 8K tokens of a 7B model's layer: 2 x 16 x 8256 x 4096 x 2 bytes."""
    sizes = {"heads": 32, "kv_heads": 32, "head_dim": 128, "context_tokens": 8192, "samples": 16}
    copies = AttentionCell(kernel="standard_flash", decoded_tokens=64, **sizes)
    shared = AttentionCell(kernel="bifurcated_flash", decoded_tokens=64, **sizes)
    queries = 16 * 4096 * 2
    assert copies.call_bytes()[0] == 2 * 16 * 8256 * 4096 * 2 + queries
    assert shared.call_bytes()[0] == 2 * (8192 + 16 * 64) * 4096 * 2 + queries


def test_a_whole_step_that_the_paper_found_too_large_is_predicted_so() -> None:
    """7B multi-head, 8K, 16 samples with a copy each: weights 13.5 GB and caches 69.3 GB."""
    cell = next(
        cell
        for cell in grid.default_grid().cells
        if isinstance(cell, StepCell)
        and (cell.kernel, cell.samples, cell.context_tokens, cell.model.kv_heads)
        == ("standard_flash", 16, 8192, 32)
    )
    gpu = rates(load_hardware("h100-sxm"))
    found = predict(cell, gpu=gpu, l2_bytes=gpu.gpu.l2_bytes)
    assert found.input_bytes == pytest.approx(13.48e9 + 69.26e9, rel=0.005)


def test_wall_time_grows_with_what_is_left() -> None:
    """No cells take no time; more cells take more."""
    gpu = rates(load_hardware("h100-sxm"))
    group = grid.default_grid().groups[10]
    planned = [(cell, predict(cell, gpu=gpu, l2_bytes=gpu.gpu.l2_bytes)) for cell in group]
    assert wall_s([], Repeats()) == 0
    one = wall_s(planned[:1], Repeats())
    assert 0 < one < wall_s(planned, Repeats())


def test_a_preview_counts_no_time_for_what_is_done() -> None:
    """Cells with a row already cost nothing more."""
    plan = grid.select(grid.default_grid(), kinds=["memory"])
    gpu = rates(load_hardware("h100-sxm"))
    done = {cell.key for cell in plan.cells}
    assert preview(plan, gpu=gpu, device="cuda", done=()).wall_s > 0
    finished = preview(plan, gpu=gpu, device="cuda", done=done)
    assert finished.wall_s == 0
    assert all(row["done"] for row in finished.rows)
