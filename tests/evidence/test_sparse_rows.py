"""Rows of sparse attention: how they are read, predicted and fitted."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator.counts.operation import Operation
from simulator.evidence.fit.calibrate import _stage
from simulator.evidence.fit.solver import with_constants
from simulator.evidence.fit.stages import STAGES
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.predict.validate import validate
from simulator.evidence.rows.reading import load
from simulator.inputs.hardware import load_hardware
from simulator.timing.constants import SPARSE_KERNELS

# One decode step of DeepSeek-V3.2's attention on H100: 16 heads of a rank.
ROW = {
    "gpu": "H100-SXM5-80GB",
    "framework": "vllm",
    "kind": "dsa_generation_module",
    "kernel": "FLASHMLA_SPARSE",
    "model": "deepseek-ai/DeepSeek-V3.2",
    "dtype": "bf16",
    "kv_dtype": "bf16",
    "gemm_dtype": "bf16",
    "heads": 16,
    "batch": 64,
    "q_len": 1,
    "past_len": 8191,
    "compress_ratio": None,
    "score_mode": None,
    "latency_us": 500.0,
}
# Kernels of the indexer and of attention on B200.
KERNEL = {
    "gpu": "B200-SXM-180GB",
    "framework": "sglang",
    "model": "nvidia/GLM-5.2-NVFP4",
    "kv_dtype": "fp8",
    "gemm_dtype": "fp8_block",
    "heads": 64,
}


def read(tmp_path, *rows: dict[str, Any]):  # noqa: ANN001, ANN201
    """Write a file of rows and read it."""
    path = tmp_path / "rows.csv"
    pd.DataFrame([{**ROW, **row} for row in rows]).to_csv(path, index=False)
    return load([path])


def operations(tmp_path, **changed: Any) -> dict[str, Operation]:  # noqa: ANN001
    """Return the operations of one row."""
    tables = read(tmp_path, changed).tables
    (group,) = prepare(tables["sparse_attention"], "sparse_attention").groups
    return {item.name: item for item in group.operations}


def test_a_module_is_its_projections_indexer_selection_and_attention(tmp_path) -> None:  # noqa: ANN001
    """64 sequences of 8,192 tokens: 64 index heads of 128 values; 2,048 tokens of 576 selected."""
    found = operations(tmp_path)
    assert found["index_scores"].flops == 2 * 64 * 8192 * 64 * 128
    assert found["index_scores"].kv_bytes_read == 64 * 8192 * 132
    assert found["index_selection"].bytes_read == 64 * 8192 * 4
    assert found["sparse_attention"].kv_bytes_read == 64 * 2048 * 576 * 2
    # Both matrices of the hidden state are one product, as in vLLM.
    assert found["query_down_projection"].n == 1536 + 512 + 64
    assert "kv_down_projection" not in found
    assert found["index_query_projection"].weight_bytes_read == 2 * 1536 * 64 * 128


def test_a_layer_that_reuses_a_selection_has_no_indexer(tmp_path) -> None:  # noqa: ANN001
    """GLM-5.2's layers between those that select."""
    found = operations(tmp_path, kind="dsa_generation_module_skip_indexer", model="zai-org/GLM-5.2")
    assert not any(name.startswith("index") for name in found)
    assert found["output_projection"].k == 16 * 256


@pytest.mark.parametrize(
    ("kind", "kernel", "name", "flops"),
    [
        # 256 queries after 4,096 tokens: 256 x 4,096 + 256 x 257 / 2 pairs.
        ("glm5_mqa_logits_module", "fp8_mqa_logits", "index_scores", 2 * 1_081_472 * 32 * 128),
        ("glm5_topk_module", "fast_topk", "index_selection", 0),
        (
            "glm5_dsa_attn_module",
            "flash_mla_sparse_fwd",
            "sparse_prefill",
            2 * 256 * 2048 * 64 * 1088,
        ),
    ],
)
def test_a_kernels_row_is_one_operation(tmp_path, kind, kernel, name, flops) -> None:  # noqa: ANN001
    """The indexer of GLM-5 has 32 heads, whatever those of the attention."""
    row = {**KERNEL, "kind": kind, "kernel": kernel, "batch": 1, "q_len": 256, "past_len": 4096}
    ((found_name, found),) = operations(tmp_path, **row).items()
    assert (found_name, found.flops) == (name, flops)


def test_the_kernel_of_blackwell_takes_all_positions_of_a_short_prompt(tmp_path) -> None:  # noqa: ANN001
    """Rows of 4,096 queries take as long after no tokens as after 128K."""
    row = {**KERNEL, "kind": "glm5_dsa_attn_module", "kernel": "flash_mla_sparse_fwd"}
    short, long = (
        operations(tmp_path, **row, batch=4, q_len=1024, past_len=past)["sparse_prefill"]
        for past in (0, 131072)
    )
    assert short.flops < long.flops
    assert short.flops * short.tile_rows_per_row == pytest.approx(
        long.flops * long.tile_rows_per_row
    )
    assert short.serial_steps == long.serial_steps == 32


def test_vllm_expands_a_cache_of_8_bits_for_a_prefill_of_many_heads(tmp_path) -> None:  # noqa: ANN001
    """From 32 heads on it runs the kernel for 16 bits."""
    row = {"kind": "dsa_context_module", "kv_dtype": "fp8", "q_len": 4096, "past_len": 0}
    few, many = (
        operations(tmp_path, **row, heads=heads, latency_us=90_000.0)["sparse_prefill"]
        for heads in (16, 32)
    )
    assert (few.low_precision_cache, many.low_precision_cache) == (True, False)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kind": "dsv4_hca_attn_module"}, "compressed caches are not known"),
        ({"kind": "window_module"}, "is not one of dsa_generation"),
        ({"model": "somebody/else"}, "model 'somebody/else' is not one of"),
        ({**KERNEL, "kind": "glm5_topk_module", "score_mode": "flat"}, "scores that all tie"),
        ({"kind": "dsa_context_module", "q_len": 16}, "the host's time"),
        ({"framework": "sglang", "batch": 1024}, "the host's time"),
        (
            {**KERNEL, "kind": "dsv4_paged_mqa_logits_module", "q_len": 64},
            "more query tokens than a decode",
        ),
    ],
)
def test_what_no_rows_determine_is_skipped_with_a_reason(tmp_path, changed, reason) -> None:  # noqa: ANN001
    """The rest of the file is predicted."""
    result = validate(read(tmp_path, changed, {}))
    assert len(result.rows) == 1
    assert [reason in text for text in result.skipped] == [True]


def test_index_keys_read_faster_than_memory_are_refused(tmp_path) -> None:  # noqa: ANN001
    """1,024 sequences of 128K tokens have 17.7 GB of index keys: 5.3 ms on an H100."""
    found = read(tmp_path, {"batch": 1024, "past_len": 131072, "latency_us": 3000.0}, {})
    assert [item.reason.endswith("the peak is 3350") for item in found.refused] == [True]


@pytest.mark.parametrize("gpu", ["h100-sxm", "b200-sxm"])
def test_cards_with_rows_have_constants_of_every_kernel(gpu: str) -> None:
    """What the rows of a card do not determine comes from the other."""
    fitted = load_hardware(gpu).fitted
    for kind in ("index_scores", "sparse_attention", "sparse_prefill"):
        assert any(name.startswith(kind) for name in fitted), kind


def test_the_fit_recovers_the_constants_of_its_rows(tmp_path) -> None:  # noqa: ANN001
    """Rows predicted from known constants give these back."""
    sizes = [
        {**KERNEL, "kind": kind, "kernel": "x", "batch": batch, "q_len": queries, "past_len": past}
        for kind, several in (
            ("dsv4_paged_mqa_logits_module", (1, 8, 32)),
            ("glm5_mqa_logits_module", (64, 512, 4096)),
            ("glm5_topk_module", (1, 64, 4096)),
        )
        for queries in several
        for batch in (1, 16, 64)
        for past in (0, 2048, 16384, 65536)
    ]
    table = read(tmp_path, *({**size, "latency_us": 1e6} for size in sizes)).tables
    rows = table["sparse_attention"]
    gpu = load_hardware("b200-sxm")
    bare = {
        name: value
        for name, value in gpu.fitted.items()
        if not any(kind in name for kind in SPARSE_KERNELS)
    }
    gpu = gpu.but(fitted=bare)
    truth = {
        "index_scores_launch_us": 5.0,
        "index_scores_flops_fraction": 0.25,
        "prefill_scores_launch_us": 6.0,
        "prefill_scores_serial_us": 0.8,
        "index_selection_launch_us": 3.0,
        "index_selection_serial_us": 0.3,
    }
    for group in prepare(rows, "sparse_attention").groups:
        rows.loc[group.index, "time_s"] = group.predict(with_constants(gpu, truth))
    kernels = next(
        stage for stage in STAGES if stage.kind == "sparse_attention" and stage.rows == "graph"
    )
    (found,) = _stage(kernels, rows, prepare(rows, kernels.kind).groups, gpu)
    for name, value in truth.items():
        assert found.fitted.constants[name] == pytest.approx(value, rel=0.05), name
    assert np.median(np.abs(found.fitted.residuals)) < 0.01
