"""Rows of latent attention: what was timed, what is impossible, and the constants they tell."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator.counts.operation import Operation, total
from simulator.evidence.fit.calibrate import Calibration, calibrate
from simulator.evidence.fit.solver import with_constants
from simulator.evidence.predict.groups import Group
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.rows.kinds import RowKind
from simulator.evidence.rows.reading import Measurements, load
from simulator.inputs.hardware import load_hardware
from simulator.timing.constants import rates

DECODE = {"gpu": "H100-SXM5-80GB", "batch": 64, "heads": 128, "kv_len": 4096, "latency_us": 300.0}
PREFILL = {**DECODE, "batch": 1, "q_len": 16384, "kv_len": 16384, "latency_us": 15_000.0}
MODULE = {
    "gpu": "H100-SXM5-80GB",
    "framework": "vllm",
    "phase": "decode",
    "batch": 2,
    "heads": 16,
    "q_len": 1,
    "past_len": 4095,
    "kv_dtype": "bf16",
    "gemm_dtype": "bf16",
    "latency_us": 90.0,
}


def read(folder: Path, *rows: dict[str, Any]) -> Measurements:
    """Write rows and read them."""
    path = folder / "rows.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return load([path])


def groups(folder: Path, kind: RowKind, *rows: dict[str, Any]) -> list[Group]:
    """Return the groups of some rows."""
    return prepare(read(folder, *rows).tables[kind], kind).groups


def operations(folder: Path, kind: RowKind, row: dict[str, Any]) -> dict[str, Operation]:
    """Return the operations of one row by name."""
    (group,) = groups(folder, kind, row)
    return {item.name: item for item in group.operations}


def test_a_decode_row_reads_each_cached_vector_once_for_all_heads(tmp_path: Path) -> None:
    """576 values a token in bf16; 576 for the keys and 512 for the values of each head's FLOPs."""
    found = operations(tmp_path, "mla_decode", DECODE)
    attention = found["attention"]
    assert attention.kind == "latent_attention"
    assert attention.kv_bytes_read == 64 * 4096 * 576 * 2
    assert attention.flops == 2 * 64 * 128 * 4096 * (576 + 512)
    assert set(found) == {"kv_write", "attention", "attention_combine"}


@pytest.mark.parametrize(
    ("scope", "more"),
    [
        ("attention", set()),
        ("rope+kv_write+attention", {"rotary", "kv_write"}),
        ("absorb_q+kv_write+attention+absorb_v", {"kv_write", "latent_absorb", "latent_value"}),
    ],
)
def test_the_scope_says_what_else_was_timed(tmp_path: Path, scope: str, more: set[str]) -> None:
    """The absorb products read 128 x 512 weights of each head."""
    found = operations(tmp_path, "mla_decode", {**DECODE, "scope": scope})
    assert set(found) == {"attention", "attention_combine"} | more
    for name in more & {"latent_absorb", "latent_value"}:
        assert found[name].weight_bytes_read == 128 * 128 * 512 * 2


def test_tensorrt_llm_splits_keys_from_hopper_on(tmp_path: Path) -> None:
    """One sequence is read by one block on A100, by many on H100."""
    one = {**DECODE, "framework": "trtllm", "batch": 1, "heads": 16, "latency_us": 500.0}
    one["scope"] = "rope+kv_write+attention"
    old = operations(tmp_path, "mla_decode", {**one, "gpu": "A100-SXM4-80GB"})
    new = operations(tmp_path, "mla_decode", one)
    assert old["attention"].effective_blocks == 1
    assert new["attention"].effective_blocks == 16
    # It rotates in the kernel that writes the cache.
    assert (new["rotary"].launches, new["kv_write"].launches) == (0, 1)


def test_the_two_forms_of_prefill_differ_3_4_fold(tmp_path: Path) -> None:
    """Per pair of query and key and head: 192 + 128 expanded, 576 + 512 in the latent space."""
    pairs = 16384 * 16385 / 2
    expanded = operations(tmp_path, "mla_prefill", PREFILL)["prefill_attention"]
    latent = groups(
        tmp_path, "mla_prefill", {**PREFILL, "form": "latent_576_512", "latency_us": 60_000.0}
    )[0].operations[-1]
    assert expanded.kind == latent.kind == "latent_prefill"
    assert expanded.flops == 2 * 128 * pairs * 320
    assert latent.flops == 2 * 128 * pairs * 1088
    assert expanded.kv_bytes_read == 16384 * 128 * 320 * 2
    assert latent.kv_bytes_read == 16384 * 576 * 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        # 302 MB, of which L2 may hold 52, in 50 us: 4,990 GB/s.
        ({**DECODE, "heads": 16, "batch": 64, "latency_us": 50.0}, "implies 4991 GB/s"),
        # 9.13 GFLOP in 7 us; its 38 MB may lie in L2.
        ({**DECODE, "batch": 8, "latency_us": 7.0}, "implies 1304 TFLOP/s"),
        # Possible in the expanded form alone.
        ({**PREFILL, "form": "latent_576_512"}, "implies 2492 TFLOP/s"),
        ({**DECODE, "plausible": 0}, "implausible"),
        ({**DECODE, "latent_dim": -1}, "latent_dim is not a size"),
        # 235 MB of output weights, in bf16.
        ({**MODULE, "heads": 128, "latency_us": 20.0}, "implies 9123 GB/s"),
    ],
)
def test_impossible_rows_are_refused(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    """By bytes, by FLOPs of the form, by the source's own mark."""
    measurements = read(tmp_path, row)
    assert measurements.rows == 0
    assert reason in measurements.refused[0].reason


def test_a_cache_of_8_bits_may_be_multiplied_at_twice_the_peak(tmp_path: Path) -> None:
    """The row that was too fast for bf16 is possible."""
    row = {**DECODE, "batch": 8, "latency_us": 7.0, "kv_dtype": "fp8"}
    assert read(tmp_path, row).refused == ()


def test_rows_of_the_host_are_skipped(tmp_path: Path) -> None:
    """A call of 302 MB that took 320 us could be either: only one of 1.2 GB tells the kernel's."""
    eager = {**DECODE, "framework": "vllm", "timing": "eager", "heads": 16, "latency_us": 320.0}
    long = {**eager, "batch": 256, "latency_us": 500.0}
    table = read(tmp_path, eager, long).tables["mla_decode"]
    found = prepare(table, "mla_decode")
    assert list(found.skipped) == [0]
    assert "launched one by one" in found.skipped[0]
    assert [(list(group.index), group.execution) for group in found.groups] == [([1], "eager")]


def test_a_module_is_the_model_s_own_operations_without_the_norm_before_it(tmp_path: Path) -> None:
    """DeepSeek-V3 with 16 local heads: the down-projections stay whole."""
    found = operations(tmp_path, "mla_module", MODULE)
    weights = 7168 * 1536 + 1536 * 16 * 192 + 7168 * 576 + 16 * 2 * 128 * 512 + 16 * 128 * 7168
    assert total(found.values()).weight_bytes_read == weights * 2
    assert found["attention"].kv_bytes_read == 2 * 4096 * 576 * 2
    assert "attention_norm" not in found
    assert "kv_up_projection" not in found
    prefill = {**MODULE, "phase": "prefill", "q_len": 512, "past_len": 0, "latency_us": 300.0}
    assert "kv_up_projection" in operations(tmp_path, "mla_module", prefill)


def test_the_format_of_a_module_s_cache_leaves_its_products_alone(tmp_path: Path) -> None:
    """An 8-bit cache changes the constants of attention, not those of bf16 products."""
    (group,) = groups(tmp_path, "mla_module", {**MODULE, "kv_dtype": "fp8"})
    gpu = rates(load_hardware("h100-sxm"), variants=group.variants)
    found = {item.name: gpu.precision_of(item) for item in group.operations}
    assert found["attention"] == found["kv_write"] == "fp8"
    assert found["output_projection"] == found["latent_absorb"] == ""


def test_what_a_module_takes_more_is_added_once(tmp_path: Path) -> None:
    """40 us of vLLM's own are 40 us in each row."""
    (group,) = groups(tmp_path, "mla_module", MODULE)
    card = load_hardware("h100-sxm")
    none, some = (
        group.predict(with_constants(card, {"vllm_module_us": value})) for value in (1e-9, 40.0)
    )
    assert some - none == pytest.approx(40e-6)


TRUE = {
    "latent_attention_launch_us": 7.0,
    "latent_attention_bandwidth_fraction": 0.66,
    "latent_attention_flops_fraction": 0.52,
    "latent_attention_block_gb_per_s": 30.0,
}
# FlashAttention on an 8-bit latent cache: a tenth of that bandwidth.
SLOW = {"sglang_fp8_latent_attention_bandwidth_fraction": 0.07}


def made(tmp_path: Path, constants: dict[str, float], rows: pd.DataFrame) -> Calibration:
    """Return the fit to decode rows that the timing model made with these constants."""
    path = tmp_path / "made.csv"
    rows.assign(gpu="l4", latency_us=1.0).to_csv(path, index=False)
    table = load([path], keep_suspect=True).tables["mla_decode"]
    card = load_hardware("l4").but(fitted={})
    generator = np.random.default_rng(1)
    for group in prepare(table, "mla_decode").groups:
        exact = group.predict(with_constants(card, constants))
        noise = np.exp(0.02 * generator.standard_normal(len(exact)))
        table.loc[group.index, "latency_us"] = exact * noise * 1e6
    table.drop(columns=["time_s", "gpu_id", "line", "file"]).to_csv(path, index=False)
    return calibrate(load([path], keep_suspect=True), load_hardware("l4"))


def grid() -> pd.DataFrame:
    """Return decode shapes from launch-bound to bound by bytes or FLOPs."""
    sizes = [
        (batch, heads, tokens)
        for batch in (1, 4, 16, 64, 256)
        for heads in (2, 16, 64, 128)
        for tokens in (64, 512, 4096, 32768)
    ]
    return pd.DataFrame(sizes, columns=["batch", "heads", "kv_len"])


def test_the_constants_that_made_the_rows_are_found(tmp_path: Path) -> None:
    """Latent attention has its own block rate: ordinary attention keeps its."""
    # Of a library without constants of its own, around attention too.
    result = made(tmp_path, TRUE, grid().assign(framework="mine", kernel="flashmla"))
    found = result.values()
    for name, true in TRUE.items():
        assert found[name][0] == pytest.approx(true, rel=0.06), name
    own, bare = (rates(card).block_bytes_per_s for card in (result.profile, load_hardware("l4")))
    assert own["latent_attention"] == pytest.approx(30e9, rel=0.06)
    assert own["attention"] == bare["attention"]


def test_a_path_that_no_one_should_use_does_not_count(tmp_path: Path) -> None:
    """General constants of 8-bit caches are those of the other library; it keeps its own."""
    fast = {f"fp8_{name}": value for name, value in TRUE.items()}
    rows = pd.concat(
        [
            grid().assign(framework="trtllm", kernel="default", kv_dtype="fp8"),
            grid().assign(framework="sglang", kernel="flash_attention", kv_dtype="fp8"),
        ]
    )
    found = made(tmp_path, fast | SLOW, rows).values()
    share = "latent_attention_bandwidth_fraction"
    assert found[f"fp8_{share}"][0] == pytest.approx(0.66, rel=0.06)
    assert found[f"sglang_fp8_{share}"][0] == pytest.approx(0.07, rel=0.06)
