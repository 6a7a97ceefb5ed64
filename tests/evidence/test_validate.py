"""Predicted against measured: any file with known columns, errors that are what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulator.api import estimate, generate
from simulator.evidence.predict import paper_code
from simulator.evidence.predict.groups import library_of
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.predict.validate import errors_of, summarise, timed, validate
from simulator.evidence.rows.reading import load
from simulator.inputs.presets import load_model

SHARED = Path(__file__).parents[3] / "shared" / "measurements"
needs_rows = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no ../shared/measurements on this machine"
)


def rows_file(folder: Path, text: str, name: str = "rows.csv") -> Path:
    """Write rows made up for a test."""
    path = folder / name
    path.write_text(text.strip() + "\n", encoding="utf-8")
    return path


MIXED = """
gpu,framework,kernel,dtype,batch,q_heads,kv_heads,head_dim,kv_len,latency_us
H200,vllm,some_new_kernel,bf16,8,32,8,128,4096,60
B200,nobody's,fa9,fp8,8,32,8,128,4096,60
Z9000,vllm,fa3,bf16,8,32,8,128,4096,60
H200,vllm,fa3,bf16,64,64,1,256,100000,1
"""


def test_unknown_kernels_are_predicted_and_unknown_gpus_counted(tmp_path: Path) -> None:
    """Of four rows one is refused as impossible and one skipped: no profile has that name."""
    measurements = load([rows_file(tmp_path, MIXED)])
    result = summarise(validate(measurements), measurements)
    assert (result["rows"], result["predicted"], result["skipped"], result["refused"]) == (
        4,
        2,
        1,
        1,
    )
    assert result["skipped_reasons"] == {"no profile of GPU Z9000": 1}
    assert set(result["constants"]) == {"h200-sxm", "b200-sxm"}


def test_errors_are_those_of_the_rows(tmp_path: Path) -> None:
    """Median, 90th percentile, bias and shares are recomputed from what -o writes."""
    measurements = load([rows_file(tmp_path, MIXED)], keep_suspect=True)
    validation = validate(measurements)
    rows = timed(validation.rows)
    ratio = rows["predicted_latency_us"] / rows["latency_us"] - 1
    assert rows["ape"].to_numpy() == pytest.approx(np.abs(ratio).to_numpy())
    result = summarise(validation, measurements)
    assert result["median_ape"] == pytest.approx(np.median(np.abs(ratio)))
    assert result["bias"] == pytest.approx(np.median(ratio))
    assert result["within_20pct"] == pytest.approx((np.abs(ratio) <= 0.2).mean())
    by_kind = [group for group in result["groups"] if group["by"] == "kind"]
    assert [(group["value"], group["rows"]) for group in by_kind] == [("decode_attention", 3)]


def test_nothing_to_predict_is_no_error(tmp_path: Path) -> None:
    """Rates of the memory are no calls: they are counted, and there are no figures to give."""
    path = rows_file(tmp_path, "gpu,test,working_set_bytes,gb_per_s\nL40S,l2_read,1e6,3000")
    measurements = load([path])
    result = summarise(validate(measurements), measurements)
    assert result["predicted"] == 0
    assert result["median_ape"] is None
    assert errors_of(pd.DataFrame())["rows"] == 0


def test_out_of_memory_cells_are_judged(tmp_path: Path) -> None:
    """70 GB of caches beside 14 GB of weights do not fit 80 GB; 35 GB do."""
    path = rows_file(
        tmp_path,
        "gpu,model,context_tokens,samples,attention,kernel,kv_layout,execution,status,step_ms\n"
        "H100,mistral-7b,8192,64,standard,flash2,copies,eager,oom,\n"
        "H100,mistral-7b,8192,32,standard,flash2,copies,eager,oom,\n"
        "H100,mistral-7b,8192,8,standard,flash2,copies,eager,ok,22",
    )
    measurements = load([path])
    result = summarise(validate(measurements), measurements)
    assert (result["oom_correct"], result["oom_total"]) == (1, 2)


@pytest.mark.parametrize(
    ("framework", "library"),
    [("vLLM-0.2.x+relay", "vllm"), ("TensorRT-LLM", "trtllm"), ("sglang", "sglang"), ("own", "")],
)
def test_libraries_are_known_by_their_names(framework: str, library: str) -> None:
    """Versions and spellings do not matter; an unknown engine has no constants of its own."""
    assert library_of(framework) == library


def cell(**changes: object) -> paper_code.PaperCell:
    """Return a cell of the paper's table."""
    settings: dict[str, object] = {
        "model": load_model("mistral-7b"),
        "context_tokens": 8192,
        "samples": 4,
        "bifurcated": False,
        "kernel": "flash2",
        "rebuilt": False,
        "compiled": False,
        "expand_kv": True,
        "weights_dtype": "bf16",
        "ranks": 1,
    }
    return paper_code.PaperCell(**{**settings, **changes})  # type: ignore[arg-type]


def test_the_paper_s_totals_per_layer() -> None:
    """Facts of its code: flash moves 9 U per sample with repeated heads, U without.

    U is K and V of a sample over 8320 allocated tokens: 2 x 8 x 128 x 8320 x 2 bytes.
    """
    u = 2 * 8 * 128 * 8320 * 2
    l2 = 50 * 2**20
    repeated = paper_code.account(cell(), l2)
    # The repeat reads U and writes 4 U; flash reads 4 U up to the current position.
    assert repeated["repeat"] == 4 * 5 * u
    assert repeated["flash"] == pytest.approx(4 * 4 * u * (8192 + 64) / 8320)
    grouped = paper_code.account(cell(expand_kv=False), l2)
    assert (grouped["repeat"], grouped["flash"]) == (0, pytest.approx(4 * u * (8192 + 64) / 8320))
    # Rebuilt: each sample asks for U and writes it.
    rebuilt = paper_code.account(cell(rebuilt=True), l2)
    assert rebuilt["strided_cat"] == pytest.approx(4 * 2 * u)
    # Plain copies of many samples: the context once, since L2 keeps 16.8 MB, and U written.
    many = paper_code.account(cell(rebuilt=True, samples=256), l2)
    assert many["cat"] == pytest.approx(u * 8192 / 8320 + 256 * u * 128 / 8320 + 256 * u)
    # Compiled, the math path reads U from memory, and again for three more query heads.
    fused = paper_code.account(cell(kernel="sdpa-math", compiled=True), l2)
    assert (fused["pass"], fused["fused_read"]) == (4 * u, 3 * 4 * u)
    assert fused["repeat"] == 0


@pytest.mark.parametrize("bifurcated", [False, True])
def test_a_repeat_of_one_is_a_plain_copy(bifurcated: bool) -> None:
    """Llama-2-7B has as many KV heads as query heads: eager code copies, compiled code does not."""
    kernel = "einsum" if bifurcated else "flash2"
    one = cell(model=load_model("llama-2-7b"), bifurcated=bifurcated, kernel=kernel)
    eager = paper_code.account(one, 50 * 2**20)
    u = 2 * 32 * 128 * 8320 * 2
    copied = (8192 + 4 * 128) / 8320 * u if bifurcated else 4 * u
    logits = 2 * 32 * 4 * 8320 * bifurcated
    assert eager["repeat"] == 0
    assert eager["pass"] == pytest.approx(2 * copied + 6 * logits)
    compiled = paper_code.account(replace(one, compiled=True), 50 * 2**20)
    assert compiled["fused_read"] == compiled["fused_copy"] == 0


def test_a_bifurcated_step_of_the_paper_hardly_grows_with_samples_in_kv() -> None:
    """Its context is read once: only logits and the decode buffers grow."""
    one, many = (
        paper_code.account(cell(bifurcated=True, kernel="einsum", samples=b), 0) for b in (1, 64)
    )
    assert one["values"] == many["values"]
    assert many["pass"] == pytest.approx(64 * one["pass"])


@needs_rows
def test_every_out_of_memory_cell_of_the_paper_is_right() -> None:
    """No cell that ran is called out of memory, and none that did not is said to fit."""
    measurements = load([SHARED / "bifurcated_paper_step_latency.csv"])
    result = summarise(validate(measurements), measurements)
    assert result["oom_total"] == result["oom_correct"] == 7


@needs_rows
def test_every_shared_row_is_predicted_or_counted() -> None:
    """Nothing is lost: predicted, skipped and refused rows are all the rows."""
    measurements = load([SHARED])
    result = summarise(validate(measurements), measurements)
    assert result["predicted"] + result["skipped"] + result["refused"] == result["rows"]
    assert np.isfinite(result["median_ape"])


def test_a_prediction_is_the_sum_of_its_operations(tmp_path: Path) -> None:
    """Rows of one group in another order get the same times."""
    head = "gpu,m,n,k,latency_us\n"
    lines = ["L40S,1,4096,4096,60", "L40S,64,4096,4096,70", "L40S,512,1024,8192,90"]
    forward = load([rows_file(tmp_path, head + "\n".join(lines))])
    backward = load([rows_file(tmp_path, head + "\n".join(lines[::-1]), "b.csv")])
    times = [
        validate(measurements).rows.set_index("m")["predicted_us"]
        for measurements in (forward, backward)
    ]
    assert times[0].to_dict() == times[1].to_dict()
    assert len(prepare(forward.tables["gemm"], "gemm").groups) == 1


STEPS = """
gpu,model,context_tokens,samples,attention,kernel,kv_layout,execution,expand_kv,weights_dtype,tensor_parallel,status,step_ms
H100,mistral-7b,8192,8,bifurcated,einsum,shared,eager,1,bf16,1,ok,33
H100,mistral-7b,8192,32,standard,flash2,copies,eager,1,bf16,1,ok,200
H100,mistral-7b,8192,64,standard,flash2,copies,eager,1,bf16,1,oom,
"""


def test_steps_that_no_gpu_could_run_are_skipped_with_a_reason(tmp_path: Path) -> None:
    """Heads that do not divide over a group, or a GPU without a link, are said in one line each."""
    head, line = STEPS.strip().split("\n")[:2]
    lines = [
        line.replace(",bf16,1,", ",bf16,3,"),
        line.replace("H100", "T4").replace("16,1,", "16,2,"),
    ]
    measurements = load([rows_file(tmp_path, "\n".join([head, *lines]))])
    result = summarise(validate(measurements), measurements)
    assert (result["rows"], result["predicted"], result["skipped"]) == (2, 1, 1)
    (why,) = result["skipped_reasons"]
    assert why.startswith("tensor_parallel = 3 does not divide")


def test_steps_of_unknown_code_are_predicted_as_questions_are(tmp_path: Path) -> None:
    """A kernel and an execution that are not the paper's get the time that estimate answers."""
    head = "gpu,model,context_tokens,samples,attention,kernel,kv_layout,execution,status,step_ms\n"
    lines = (
        "H100,mistral-7b,8192,4,standard,fa9,copies,graph,ok,9",
        "RTX 4090,mistral-7b,8192,4,bifurcated,my-einsum,shared,eager,ok,30",
        "H100,mistral-7b,8192,9999,standard,fa9,copies,graph,oom,",
        "H100,mistral-7b,8192,4,standard,fa9,copies,somehow,ok,9",
    )
    measurements = load([rows_file(tmp_path, head + "\n".join(lines))])
    validation = validate(measurements)
    rows = validation.rows.sort_values("line")
    questions = (
        ("h100-sxm", 4, "standard", "flash", "copies", "graph"),
        ("rtx-4090", 4, "bifurcated", "einsum", "shared", "eager"),
        ("h100-sxm", 9999, "standard", "flash", "copies", "graph"),
    )
    answers = [
        estimate(
            "mistral-7b",
            gpu,
            context_tokens=8192,
            samples=samples,
            decoded_tokens=64,
            attention=attention,
            kernel=kernel,
            kv_layout=kv_layout,
            execution=execution,
        )
        for gpu, samples, attention, kernel, kv_layout, execution in questions
    ]
    assert rows["predicted_us"].to_numpy() == pytest.approx([1e6 * a.step_s for a in answers])
    for end, times in (
        ("low", [answer.step_low_s for answer in answers]),
        ("high", [answer.step_high_s for answer in answers]),
    ):
        assert rows[f"predicted_us_{end}"].to_numpy() == pytest.approx(np.array(times) * 1e6)
    assert rows["predicted_status"].tolist() == ["ok", "ok", "oom"]
    result = summarise(validation, measurements)
    assert (result["oom_correct"], result["oom_total"]) == (1, 1)
    assert "somehow" in next(iter(result["skipped_reasons"]))


def test_a_whole_step_says_what_it_is_made_of(tmp_path: Path) -> None:
    """Its parts add up to the prediction; a step that waits for the host is bound by launches."""
    rows = validate(load([rows_file(tmp_path, STEPS)])).rows
    assert rows["regime"].tolist()[:2] == ["launch", "memory"]
    for reason, predicted_us in zip(rows["reason"], rows["predicted_us"], strict=True):
        assert reason.endswith(" ms")
        parts = [float(part.split()[1]) for part in reason.split(" + ")]
        assert sum(parts) == pytest.approx(predicted_us / 1000, abs=0.2)
    assert rows["reason"].str.startswith("host").tolist() == [True, False, False]
    assert rows["predicted_status"].tolist() == ["ok", "ok", "oom"]


def test_a_row_says_whether_its_time_lies_in_its_interval(tmp_path: Path) -> None:
    """Times at its ends and beyond; the report's shares are those of the rows, in either unit."""
    head = "gpu,batch,q_heads,kv_heads,head_dim,kv_len,latency_us\n"
    line = "L40S,{batch},32,8,128,4096,{time}\n"

    def rows(times: dict[int, float]) -> pd.DataFrame:
        text = head + "".join(line.format(batch=b, time=t) for b, t in times.items())
        measurements = load([rows_file(tmp_path, text)], keep_suspect=True)
        validation = validate(measurements)
        share = summarise(validation, measurements)
        assert share["inside"] == pytest.approx(validation.rows["inside"].astype(float).mean())
        assert share["intervals"] == len(times)
        by_kind = next(group for group in share["groups"] if group["by"] == "kind")
        assert by_kind["inside"] == share["inside"]
        return validation.rows.set_index("batch")

    first = rows(dict.fromkeys((1, 8, 64, 65), 100.0))
    low, high = (first[f"predicted_us_{end}"] for end in ("low", "high"))
    assert (low < first["predicted_us"]).all()
    assert (first["predicted_us"] < high).all()
    moved = rows({1: 1.01 * low[1], 8: 0.99 * high[8], 64: 0.99 * low[64], 65: 1.01 * high[65]})
    assert moved["inside"].to_dict() == {1: True, 8: True, 64: False, 65: False}
    assert moved["predicted_latency_us_low"].to_dict() == low.to_dict()


def test_rows_without_an_interval_say_nothing(tmp_path: Path) -> None:
    """The paper's own steps, predicted with what its harness adds; and what has no time."""
    measurements = load([rows_file(tmp_path, STEPS)])
    validation = validate(measurements)
    assert validation.rows["inside"].isna().all()
    assert validation.rows["predicted_us_low"].isna().all()
    result = summarise(validation, measurements)
    assert (result["inside"], result["intervals"]) == (None, 0)


def test_the_interval_of_bifurcated_attention_is_wider(tmp_path: Path) -> None:
    """Its rows come on top of those of standard attention, as in a step."""
    head = "gpu,mode,batch,q_heads,kv_heads,head_dim,prefix_len,suffix_len,latency_us\n"
    lines = "A40,standard,16,32,32,128,2048,64,900\nA40,shared_prefix,16,32,32,128,2048,64,300\n"
    rows = validate(load([rows_file(tmp_path, head + lines)])).rows.set_index("mode")
    width = (rows["predicted_us_high"] - rows["predicted_us"]) / rows["predicted_us"]
    assert width["shared_prefix"] > width["standard"] > 0


def test_a_batch_has_the_interval_of_its_request(tmp_path: Path) -> None:
    """Of an engine without constants of its own: generate's, for each token."""
    head = "gpu,model,batch,input_len,output_len,step_ms\n"
    rows = validate(load([rows_file(tmp_path, head + "H100,llama-2-7b,8,512,256,10")])).rows
    request = generate(
        "llama-2-7b",
        "h100-sxm",
        prompts=8,
        samples=1,
        context_tokens=512,
        output_tokens=256,
        weight_dtype="bf16",
    )
    for column, seconds in (
        ("predicted_us", request.total_s),
        ("predicted_us_low", request.total_low_s),
        ("predicted_us_high", request.total_high_s),
    ):
        assert rows[column].iloc[0] == pytest.approx(seconds / 256 * 1e6, rel=1e-3)
