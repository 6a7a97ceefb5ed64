"""Rows of serving benchmarks: how they are read and predicted."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pytest

from simulator.counts.transformer import decode_operations
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.predict.validate import Validation, groups, validate
from simulator.evidence.rows.reading import Measurements, load
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup, ask
from simulator.timing.constants import rates
from simulator.timing.interval import code_spread
from simulator.timing.request import generation_time
from simulator.timing.step import decode_time

if TYPE_CHECKING:
    from simulator.evidence.predict.serving import ServingGroup

# 64 users of Llama 70B in 8 bits on two H100, of equal lengths.
ROW = {
    "gpu": "h100-sxm",
    "engine": "vllm",
    "model": "llama-3.1-70b",
    "weights_dtype": "fp8",
    "kv_dtype": "fp8",
    "tensor_parallel": 2,
    "input_len": 8192,
    "output_len": 1024,
    "concurrency": 64,
    "tpot_ms": 60.0,
}


def read(tmp_path, *changed: dict[str, Any]) -> Measurements:  # noqa: ANN001
    """Write rows and read them."""
    path = tmp_path / "rows.csv"
    pd.DataFrame([{**ROW, **row} for row in changed or ({},)]).to_csv(path, index=False)
    return load([path])


def predicted(tmp_path, *changed: dict[str, Any]) -> Validation:  # noqa: ANN001
    """Return the predictions of rows."""
    return validate(read(tmp_path, *changed))


def served(  # the client's run, event by event
    *, users: int, step_s: float, prefill_s: float, lengths: "np.ndarray", requests: int
) -> tuple[float, float]:
    """Return the mean TPOT and TTFT of users who ask again at once. [s].

    The engine prefills whoever waits before it decodes. Each step gives one token to all that
    decode; the prefill gives the first.
    """
    waiting, decoding = [(0.0, user) for user in range(users)], {}
    now, drawn, tpots, ttfts = 0.0, 0, [], []
    while len(tpots) < requests:
        if waiting:
            asked, user = waiting.pop(0)
            now += prefill_s
            ttfts.append(now - asked)
            length = int(lengths[drawn % len(lengths)])
            decoding[user], drawn = [length - 1, length - 1, now], drawn + 1
            continue
        now += step_s
        for user in list(decoding):
            decoding[user][0] -= 1
            if not decoding[user][0]:
                _, tokens, began = decoding.pop(user)
                tpots.append((now - began) / tokens)
                waiting.append((now, user))
    later = slice(len(tpots) // 2, None)  # without the start, when all ask together
    return float(np.mean(tpots[later])), float(np.mean(ttfts[later]))


def test_a_token_takes_a_step_and_a_share_of_the_others_prefill(tmp_path) -> None:  # noqa: ANN001
    """63 others prefill once while a request decodes 1,023 tokens; its context is in mid-way."""
    (row,) = predicted(tmp_path).rows.to_dict("records")
    shape, gpu = load_model("llama-3.1-70b"), rates(load_hardware("h100-sxm"))
    sizes = {"samples": 1, "context_tokens": 8192, "decoded_tokens": 512}
    how = {"weight_dtype": "fp8", "kv_dtype": "fp8", "tensor_parallel": 2}
    step = decode_time(shape, *ask(shape, prompts=64, **sizes, **how), gpu).total_s
    one = generation_time(shape, *ask(shape, prompts=1, **sizes, **how), gpu, output_tokens=1)
    prefill = one.prefill.total_s
    assert row["predicted_step_ms"] == pytest.approx(1e3 * step)
    assert row["predicted_ttft_ms"] == pytest.approx(1e3 * (prefill + step))
    assert row["predicted_tpot_ms"] == pytest.approx(1e3 * (step + 63 * prefill / 1023))


def test_one_user_sees_only_steps(tmp_path) -> None:  # noqa: ANN001
    """Nobody else's prompt is prefilled."""
    (row,) = predicted(tmp_path, {"concurrency": 1}).rows.to_dict("records")
    assert row["predicted_tpot_ms"] == row["predicted_step_ms"]


def test_a_simulated_server_agrees_where_lengths_vary(tmp_path) -> None:  # noqa: ANN001
    """Requests of 0.8 to 1.0 of the stated length end one by one, as the closed form takes it."""
    (row,) = predicted(tmp_path, {"length_ratio": 0.9}).rows.to_dict("records")
    step_s = row["predicted_step_ms"] / 1e3
    prefill_s = row["predicted_ttft_ms"] / 1e3 - step_s
    lengths = np.random.default_rng(1).integers(round(0.8 * 1024), 1025, 4000)
    tpot, ttft = served(
        users=64, step_s=step_s, prefill_s=prefill_s, lengths=lengths, requests=4000
    )
    assert row["predicted_tpot_ms"] / 1e3 == pytest.approx(tpot, rel=0.01)
    assert prefill_s < ttft < 1.3 * prefill_s


@pytest.mark.parametrize(("engine", "locked"), [("sglang", True), ("vllm", False)])
def test_equal_requests_of_a_prefill_first_engine_stay_in_lockstep(
    tmp_path,  # noqa: ANN001
    engine: str,
    locked: bool,
) -> None:
    """All begin and end together: their TTFT tells so, and half of the prefills are seen."""
    (row,) = predicted(tmp_path, {"engine": engine}).rows.to_dict("records")
    step_s = row["predicted_step_ms"] / 1e3
    prefill_s = row["predicted_ttft_ms"] / 1e3 - step_s
    lengths = np.array([1024])
    tpot, ttft = served(
        users=64, step_s=step_s, prefill_s=prefill_s, lengths=lengths, requests=1000
    )
    told = {"engine": engine, "ttft_ms": 1e3 * ttft}
    (same,) = predicted(tmp_path, told).rows.to_dict("records")
    assert (same["predicted_tpot_ms"] / 1e3 == pytest.approx(tpot, rel=0.001)) == locked
    assert (same["predicted_ttft_ms"] / 1e3 == pytest.approx(ttft + step_s, rel=0.001)) == locked
    assert (same["predicted_tpot_ms"] == row["predicted_tpot_ms"]) != locked


@pytest.mark.parametrize(
    "otherwise", [{"length_ratio": 0.9}, {"lengths_vary": 1}, {"ttft_ms": 10.0}]
)
def test_other_requests_end_one_by_one(tmp_path, otherwise: dict[str, Any]) -> None:  # noqa: ANN001
    """Lengths that vary do not stay together, nor do requests that wait for one prefill."""
    asked = {"engine": "sglang", "ttft_ms": 1e6, **otherwise}
    (row,) = predicted(tmp_path, asked).rows.to_dict("records")
    (plain,) = predicted(tmp_path, {**asked, "ttft_ms": None}).rows.to_dict("records")
    assert row["predicted_tpot_ms"] == plain["predicted_tpot_ms"]


def test_a_series_faster_than_the_cards_peaks_is_skipped(tmp_path) -> None:  # noqa: ANN001
    """64 prompts of 8K tokens in 128 steps: 4,096 tokens of 2 x 70 GFLOP on 4 PFLOP/s are 145 ms.

    Reading the weights alone takes 10 ms, so one row is no wonder by itself.
    """
    fast = {"output_len": 128, "tpot_ms": 80.0}
    slow = {"output_len": 128, "tpot_ms": 1000.0}
    series = [fast | {"concurrency": users} for users in (60, 62, 64)]
    other = slow | {"engine": "trtllm"}
    found = predicted(tmp_path, *series, slow, other)
    assert found.rows["framework"].tolist() == ["trtllm"]
    ((reason, count),) = found.skipped.items()
    assert "prompts may be cached" in reason
    assert count == 4
    # Two rows say nothing about a third.
    assert len(predicted(tmp_path, *series[:2], slow, other).rows) == 2


def test_lengths_are_a_share_of_those_stated(tmp_path) -> None:  # noqa: ANN001
    """Lengths from 0.8 to 1.0 of 1,000 are 900 on average."""
    sizes = {"input_len": 1000, "output_len": 1000}
    shorter, exact = predicted(
        tmp_path,
        {**sizes, "length_ratio": 0.9},
        {"input_len": 900, "output_len": 900, "length_ratio": 1.0},
    ).rows["predicted_tpot_ms"]
    assert shorter == pytest.approx(exact)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("speculative", 1, "speculative decoding"),
        ("disaggregated", 1, "separate GPUs"),
        ("nodes", 2, "several nodes"),
        ("attention_dp", 8, "data-parallel attention"),
        ("model", "no-such-model", "no-such-model"),
        ("tensor_parallel", 7, "7"),
    ],
)
def test_what_is_not_predicted_is_skipped_with_its_reason(
    tmp_path,  # noqa: ANN001
    column: str,
    value: Any,
    words: str,
) -> None:
    """A row of another kind of server is counted, and the others are predicted."""
    found = predicted(tmp_path, {column: value}, {column: ROW.get(column, 0)})
    assert len(found.rows) == 1
    ((reason, count),) = found.skipped.items()
    assert words in reason
    assert count == 1


def test_a_row_faster_than_its_weights_is_refused(tmp_path) -> None:  # noqa: ANN001
    """70 GB over two cards of 3.35 TB/s take 10 ms: 5 ms tell of drafted tokens."""
    measurements = read(tmp_path, {"tpot_ms": 5.0, "concurrency": 1})
    assert not len(measurements.tables["serving"])
    assert "the peak is" in measurements.refused[0].reason


@pytest.mark.parametrize(
    ("model", "asked", "taken"),
    [
        ("gpt-oss-120b", "fp4", "auto"),  # its experts are MXFP4
        ("deepseek-v3", "fp8", "auto"),  # scales of blocks
        ("deepseek-v3", "fp4", "nvfp4"),  # another checkpoint
        ("llama-3.1-70b", "fp8", "fp8"),
        ("qwen3-32b", "bf16", "auto"),
    ],
)
def test_the_checkpoints_own_format_is_asked_if_as_wide(
    tmp_path,  # noqa: ANN001
    model: str,
    asked: str,
    taken: str,
) -> None:
    """Rows name the width of the weights, not their format."""
    table = read(tmp_path, {"model": model, "weights_dtype": asked, "tensor_parallel": 8}).tables
    (group,) = prepare(table["serving"], "serving").groups
    assert group.setup is not None
    assert group.setup.weight_dtype == taken


def test_no_interval_where_no_rows_tell_it(tmp_path) -> None:  # noqa: ANN001
    """Latent attention on another vendor's card."""
    asked = {"model": "deepseek-v3", "tensor_parallel": 8}
    ours, others = predicted(
        tmp_path, {**asked, "gpu": "h200-sxm"}, {**asked, "gpu": "mi300x"}
    ).rows.to_dict("records")
    assert (
        ours["predicted_tpot_ms_low"] < ours["predicted_tpot_ms"] < ours["predicted_tpot_ms_high"]
    )
    assert others["inside"] is None
    assert np.isnan(others["predicted_tpot_ms_high"])


def test_an_interval_under_load_is_wider_than_that_of_its_kernels(tmp_path) -> None:  # noqa: ANN001
    """Engines vary as well: half widths of kernels and of engines add as squares."""
    (group,) = prepare(read(tmp_path, {"concurrency": 1}).tables["serving"], "serving").groups
    card, engine = load_hardware("h100-sxm"), code_spread("engine")
    time = group.predict(card)
    (_, kernels), (_, served) = (
        cast("ServingGroup", group).interval(card, served=served) or (time, time)
        for served in (False, True)
    )
    share = np.sqrt((kernels / time - 1) ** 2 + engine.streaming_above**2)
    # The parts beside collectives are added first: to within a hundredth.
    assert served / time - 1 == pytest.approx(share, abs=0.01)


def test_the_step_of_whole_experts_is_that_of_the_busiest_gpu(tmp_path) -> None:  # noqa: ANN001
    """8 experts of 4 tokens each: rows say whether experts are split or dealt out."""
    asked = {"model": "deepseek-v3", "gpu": "h200-sxm", "tensor_parallel": 8, "concurrency": 4}
    table = predicted(tmp_path, asked, {**asked, "expert_parallel": 8}).rows
    split, whole = table["predicted_tpot_ms"]
    assert 1.05 < whole / split < 1.5


@pytest.mark.parametrize(
    ("engine", "apart"), [("vllm", True), ("sglang", False), ("trtllm", False)]
)
@pytest.mark.parametrize("model", ["llama-3.1-70b", "deepseek-v3"])
def test_some_engines_quantise_in_the_kernel_before(model: str, engine: str, apart: bool) -> None:
    """Products stay in 8 bits; only the kernels between them are gone, also before experts."""
    shape = load_model(model)
    setup, work = ask(shape, engine=engine, weight_dtype="fp8", tensor_parallel=8)
    found = decode_operations(shape, setup, work, resident_blocks=132)
    assert any(item.kind == "quantise" for item in found) == apart
    assert {item.dtype for item in found if item.kind == "experts"} <= {"fp8"}


def test_engines_multiply_the_hidden_state_of_latent_attention_once() -> None:
    """1,536 columns of queries, 512 of the latent vector and 64 rotary ones; PyTorch has two."""
    shape = load_model("deepseek-v3")
    columns = {}
    for execution in ("graph", "eager"):
        setup, work = ask(shape, execution=execution)
        found = decode_operations(shape, setup, work, resident_blocks=132)
        columns[execution] = [item.n for item in found if "down_projection" in item.name]
    assert columns == {"graph": [1536 + 512 + 64], "eager": [1536, 512 + 64]}


def test_the_engine_of_an_unknown_name_is_the_default(tmp_path) -> None:  # noqa: ANN001
    """Someone's own server is timed as any question."""
    (group,) = prepare(read(tmp_path, {"engine": "my-server"}).tables["serving"], "serving").groups
    assert group.setup is not None
    assert group.setup.engine == Setup().engine


def test_errors_are_told_by_cell_and_by_concurrency(tmp_path) -> None:  # noqa: ANN001
    """Two rows of one model and one of another, at two concurrencies."""
    changed = ({}, {"concurrency": 8}, {"model": "llama-3.1-8b", "concurrency": 8})
    listed = groups(predicted(tmp_path, *changed).rows)
    found = {(item["by"], item["value"]): item for item in listed}
    cell = "kind, gpu, framework, model, weights_dtype"
    assert found[cell, "serving, h100-sxm, vllm, llama-3.1-70b, fp8"]["rows"] == 2
    assert found[cell, "serving, h100-sxm, vllm, llama-3.1-8b, fp8"]["rows"] == 1
    assert found["kind, concurrency", "serving, 8"]["rows"] == 2


def test_whole_experts_are_dealt_out_as_the_row_says(tmp_path) -> None:  # noqa: ANN001
    """It is the question of the same parallelism; 0 says nothing, as no column does."""
    row = {"model": "deepseek-v3", "tensor_parallel": 8, "weights_dtype": "fp8", "concurrency": 64}
    sliced, untold, whole = predicted(
        tmp_path, *({**row, "gpu": "h200-sxm", "expert_parallel": parts} for parts in (1, 0, 8))
    ).rows["predicted_step_ms"]
    assert sliced == untold
    shape, gpu = load_model("deepseek-v3"), rates(load_hardware("h200-sxm"))
    sizes = {"prompts": 64, "samples": 1, "context_tokens": 8192, "decoded_tokens": 512}
    how = {"weight_dtype": "auto", "kv_dtype": "fp8", "tensor_parallel": 8, "expert_parallel": 8}
    expected = decode_time(shape, *ask(shape, **sizes, **how), gpu).total_s
    assert whole == pytest.approx(1e3 * expected)
    assert whole != sliced
