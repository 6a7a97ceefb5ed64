"""Tidy frames of a study: what varies, what the rows say, and that they agree with one question."""

from dataclasses import replace
from typing import Any

import pytest
from builders import without
from plot_studies import study

from simulator import api
from simulator.answers import frames
from simulator.answers.study import Study
from simulator.counts.operation import PARTS
from simulator.errors import SimulatorError, WorkloadError
from simulator.inputs.hardware import profile_files, read_profile
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

GAIN = "gain, and standard ends"


def _settings(question: Study) -> dict[str, Any]:
    """Return a question as the functions of api take it."""
    return question.setup.as_dict() | question.workload.as_dict()


def test_a_grid_has_a_row_for_each_point_and_way() -> None:
    """Two contexts, three sample counts, two ways: 12 rows, the question's own marked."""
    frame = frames.grid(study(GAIN), context_tokens=[4096, 8192], samples=[1, 32, 64])
    assert len(frame) == 12
    assert frame[frame["asked"]][["context_tokens", "samples"]].drop_duplicates().shape == (1, 2)
    assert set(frame["variant"]) == {"standard", "bifurcated"}
    both = frame.groupby(["context_tokens", "samples"])["fits"].transform("all")
    assert (frame["both_fit"] == both).all()
    assert set(both) == {True, False}


def test_ratios_are_to_standard_at_the_same_point() -> None:
    """Speed-up and ratio of bytes are standard's over the row's own, 1 for standard itself."""
    frame = frames.grid(study(GAIN), samples=[2, 32], context_tokens=[512, 8192])
    standard = frame[frame["variant"] == "standard"]
    assert (standard["speedup"] == 1).all()
    assert (standard["kv_io_ratio"] == 1).all()
    row = frame[(frame["variant"] == "bifurcated") & frame["asked"]].iloc[0]
    question = study(GAIN)
    answer = api.compare(question.model, question.gpu, **_settings(question))
    assert row["speedup"] == pytest.approx(answer.speedup)
    assert row["kv_io_ratio"] == pytest.approx(answer.kv_io_ratio)
    assert row["verdict"] == answer.verdict


def test_ends_of_memory_are_exact() -> None:
    """Among the samples are the most that fit and one more, of either kind of attention."""
    frame = frames.by_samples(study(GAIN))
    standard = frame[frame["variant"] == "standard"].set_index("samples")["fits"]
    assert (standard[14], standard[15]) == (True, False)


def test_kernels_without_a_form_for_a_latent_cache_are_left_out() -> None:
    """PyTorch's reference path cannot read a latent cache; the others are there."""
    frame = frames.by_kernel(study("fits nowhere, latent cache"))
    assert set(frame["kernel"]) == {"ideal", "flash", "einsum"}


def test_own_tokens_grow_from_the_first_step_to_the_last_of_the_request() -> None:
    """Four query tokens, 2.5 accepted: from 4 own tokens to those of generate's last step."""
    asked = study(GAIN)
    drafts = {"query_tokens": 4, "accepted_tokens": 2.5}
    question = replace(asked, workload=asked.workload.but(**drafts), output_tokens=100)
    frame = frames.by_own_tokens(question)
    request = api.generate(question.model, question.gpu, output_tokens=100, **_settings(question))
    own = frame["decoded_tokens"]
    assert (own.min(), own.max()) == (4, request.last_step.workload.decoded_tokens)
    steps = frame[frame["variant"] == "standard"].sort_values("decoded_tokens")["step_ms"]
    assert steps.iloc[0] == pytest.approx(request.time.first_step_s * 1e3)
    assert steps.iloc[-1] == pytest.approx(request.time.last_step_s * 1e3)


def test_the_context_of_a_tree_is_not_varied() -> None:
    """A prefix tree has no one context length: that is an error, not a wrong figure."""
    sizes = without(study(GAIN).workload, "tree", "context_tokens", "prompts")
    question = replace(study(GAIN), workload=Workload(**sizes, tree="1K,512x4"))
    with pytest.raises(WorkloadError, match="tree"):
        frames.by_context(question)


def test_parts_of_a_step_are_of_the_list() -> None:
    """Every operation of models of every kind belongs to a part that figures have a colour for."""
    for about in ("fits nowhere, latent cache", "a single point, experts", GAIN):
        frame = frames.operations(study(about))
        assert set(frame["part"]) <= set(PARTS)
        for _, rows in frame.groupby("variant"):
            assert rows["time_ms"].sum() == pytest.approx(rows["step_ms"].iloc[0])


def test_a_single_gpu_is_compared_with_those_of_a_price() -> None:
    """One GPU stands first beside all with a price and FlashAttention; two are compared alone."""
    alone = replace(study(GAIN), gpus=study(GAIN).gpus[:1], setup=Setup(), workload=Workload())
    gpus = frames.compared_gpus(alone)
    profiles = [read_profile(path) for path in profile_files().values()]
    priced = {
        gpu.id for gpu in profiles if gpu.price_usd_per_hour is not None and not gpu.without_flash
    }
    assert gpus[0].id == "h100-sxm"
    assert {gpu.id for gpu in gpus} == priced
    assert [gpu.id for gpu in frames.compared_gpus(study(GAIN))] == ["h100-sxm", "a100-sxm-80gb"]


def test_a_question_that_runs_on_no_gpu_is_an_error() -> None:
    """Where no GPU can take the question the reasons are told."""
    odd = load_model("llama-2-7b")
    setup = Setup(tensor_parallel=7)
    question = Study(models=(odd,), gpus=study(GAIN).gpus, setup=setup, workload=Workload())
    with pytest.raises(SimulatorError, match="7"):
        frames.by_gpu(question)
