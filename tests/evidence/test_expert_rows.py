"""Rows of experts: read, refused, doubted, predicted and fitted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from simulator.counts.operation import Operation
from simulator.evidence.fit.calibrate import _alike, calibrate
from simulator.evidence.fit.solver import with_constants
from simulator.evidence.fit.stages import STAGES
from simulator.evidence.predict.groups import Group
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.predict.validate import validate
from simulator.evidence.rows.reading import Measurements, load
from simulator.inputs.hardware import load_hardware
from simulator.timing.constants import Variant

CARD = "l4"
TRUE = {
    "experts_launch_us": 6.0,
    "group_us": 0.08,
    "visit_us": 0.005,
    "experts_block_us": 6.0,
    "group_start_k": 900.0,
    "experts_bandwidth_fraction": 0.7,
    "experts_flops_fraction": 0.6,
}
SHAPES = [
    *((2048, 768, 128, 8), (4096, 14336, 8, 2), (4096, 1024, 512, 10), (1024, 2688, 64, 6)),
    *((512, 256, 16, 2), (1024, 512, 256, 8), (256, 256, 4, 1), (1024, 256, 512, 4)),
    *((2048, 2048, 32, 4), (512, 1024, 384, 6)),
]


def written(path: Path, rows: list[dict[str, Any]] | pd.DataFrame) -> Path:
    """Write rows of experts with the columns that all have."""
    shared = {"gpu": CARD, "framework": "vllm", "kernel": "none", "dtype": "bf16"}
    frame = pd.DataFrame(rows)
    frame = frame.assign(**{key: value for key, value in shared.items() if key not in frame})
    frame.to_csv(path, index=False)
    return path


def row(tokens: int, shape: tuple[int, int, int, int], **more: Any) -> dict[str, Any]:
    """Return a row of one call, by default of 1 s, which no bound refuses."""
    names = ("hidden_size", "intermediate", "experts", "top_k")
    return {"tokens": tokens, **dict(zip(names, shape, strict=True)), "latency_us": 1e6, **more}


def up(group: Group) -> Operation:
    """Return the first product of a group's rows."""
    return next(item for item in group.operations if item.name == "experts_up")


def made(path: Path, constants: dict[str, float]) -> Measurements:
    """Return rows that the timing model made with these constants, and 2 % noise."""
    rows = [
        # Of a library without constants of its own, around the products too.
        row(2**i, shape, tensor_parallel=ranks, framework="mine")
        for shape in SHAPES
        for ranks in (1, 4)
        for i in range(15)
    ]
    table = load([written(path, rows)]).tables["moe"]
    card = with_constants(load_hardware(CARD).but(fitted={}), constants)
    noise = np.random.default_rng(1)
    for group in prepare(table, "moe").groups:
        factor = np.exp(0.02 * noise.standard_normal(len(group.index)))
        table.loc[group.index, "latency_us"] = group.predict(card) * factor * 1e6
    kept = ["tokens", "hidden_size", "intermediate", "experts", "top_k", "latency_us"]
    return load([written(path, table[[*kept, "tensor_parallel", "framework"]])])


def test_the_constants_that_made_the_rows_are_found(tmp_path: Path) -> None:
    """All six, from rows without any of the columns that may be absent."""
    found = calibrate(made(tmp_path / "made.csv", TRUE), load_hardware(CARD)).values()
    for name, true in TRUE.items():
        assert found[name][0] == pytest.approx(true, rel=0.1), name


def test_a_scheme_is_a_stored_format_and_one_that_is_multiplied(tmp_path: Path) -> None:
    """Weights of 4 bits with activations of 16 or 8; the product has its own quantise kernel."""
    schemes = ("w4a16_mxfp4", "w4a8_mxfp4_mxfp8", "int4_wo", "fp8_block")
    rows = [row(16, SHAPES[0], dtype=name) for name in schemes]
    table = load([written(tmp_path / "rows.csv", rows)]).tables["moe"]
    assert list(table["dtype"]) == ["mxfp4", "mxfp4", "int4", "fp8_block"]
    assert list(table["product_dtype"]) == ["bf16", "fp8", "bf16", "fp8_block"]
    groups = {group.index[0]: group for group in prepare(table, "moe").groups}
    quantised = [any(op.kind == "quantise" for op in groups[i].operations) for i in range(4)]
    assert quantised == [False, True, False, True]
    assert groups[1].variants[0] == Variant("vllm_w4a8", "mxfp4")
    assert Variant(precision="int4") in groups[0].variants  # which stands in for mxfp4


def test_rows_may_say_what_the_first_rank_has(tmp_path: Path) -> None:
    """Else 64 tokens' 8 visits each are shared by 4 ranks: 128 pairs, all of 32 experts."""
    rows = [
        row(64, SHAPES[0], expert_parallel=4),
        row(64, SHAPES[0], expert_parallel=4, distinct_experts=20, rank_pairs=300),
    ]
    table = load([written(tmp_path / "rows.csv", rows)]).tables["moe"]
    (group,) = prepare(table, "moe").groups
    item = up(group)
    assert (list(item.groups), list(item.m), list(item.held)) == ([32, 20], [128, 300], [32, 32])


def test_an_unknown_routing_is_skipped_with_its_reason(tmp_path: Path) -> None:
    """Nobody knows which experts it visits."""
    path = written(tmp_path / "rows.csv", [row(4, SHAPES[0], routing="hashed")])
    result = validate(load([path]))
    assert list(result.skipped) == ["routing hashed is not one of balanced, uniform, power_law"]


def test_what_a_file_calls_implausible_is_refused(tmp_path: Path) -> None:
    """Unless its weights lie in L2, whose bandwidth a row may well have."""
    rows = [
        row(4, SHAPES[0], plausible=0),
        row(4, SHAPES[0], plausible=0, fits_l2=1),
        row(4, SHAPES[0], series_plausible=0),
    ]
    found = load([written(tmp_path / "rows.csv", rows)])
    assert [each.line for each in found.refused] == [2, 4]
    assert found.rows == 1


def test_many_impossible_rows_make_the_rest_of_their_series_distrusted(tmp_path: Path) -> None:
    """16 GB of weights in 10 ms: no L4 reads 1,600 GB/s. Others of that shape are not fitted."""
    shape = (7168, 2048, 256, 8)
    fast = [row(64 + i, shape, latency_us=1e4) for i in range(3)]
    slow = [row(200 + i, shape) for i in range(12)]
    path = written(tmp_path / "rows.csv", [*fast, *slow])
    found = load([path])
    assert len(found.refused) == 3
    assert "GB/s, the peak is" in found.refused[0].reason
    assert list(found.distrusted.values()) == [12]
    assert found.tables["moe"]["distrusted"].all()
    good = made(tmp_path / "made.csv", TRUE).tables["moe"]
    both = Measurements({"moe": pd.concat([good, found.tables["moe"]], ignore_index=True)})
    assert calibrate(both, load_hardware(CARD)).fits[0].fitted.rows == len(good)
    # Two of fourteen are few enough.
    assert not load([written(path, [*fast[:2], *slow])]).distrusted


def test_rows_of_triton_have_a_buffer_row_for_every_choice(tmp_path: Path) -> None:
    """16 ranks: 8 x 64 choices pass through the activation, of which this rank multiplies 32.

    Of the others its products write zeros; the sum reads all choices and writes a row for a token.
    """
    rows = [row(64, SHAPES[0], expert_parallel=16, kernel="vllm_triton_experts")]
    table = load([written(tmp_path / "rows.csv", rows)]).tables["moe"]
    (group,) = prepare(table, "moe").groups
    named = {item.name: item for item in group.operations}
    assert named["experts_activation"].bytes_written == pytest.approx(8 * 64 * 768 * 2)
    assert named["experts_up"].m == 32
    for name, width in (("experts_up", 2 * 768), ("experts_down", 2048)):
        assert named[name].bytes_written == pytest.approx(8 * 64 * width * 2)
    summed = named["expert_sum"]
    assert (summed.bytes_read, summed.bytes_written) == pytest.approx((8 * 64 * 4096, 64 * 4096))
    assert "expert_gather" not in named


def test_sglang_takes_a_larger_tile_for_more_tokens_than_experts(tmp_path: Path) -> None:
    """Of 16 of 128 experts on a GPU: 16 tokens still take the tile for few. So did vLLM's once."""
    kernel = "fused_moe_triton"
    rows = [
        row(tokens, SHAPES[0], expert_parallel=8, kernel=kernel, framework=name, version=version)
        for name, version in (("sglang", "0.5.14"), ("vllm", "0.14.0"), ("vllm", "0.24.0"))
        for tokens in (16, 17)
    ]
    found = prepare(load([written(tmp_path / "rows.csv", rows)]).tables["moe"], "moe").groups
    tiles = {group.variant.library: up(group).tile for group in found}
    assert tiles.pop("vllm_triton") is None
    assert len(found) == 3
    assert [list(sizes) for sizes in tiles["sglang_triton"]] == [[16, 64], [32, 64], [64, 32]]


def test_rows_of_older_code_are_of_what_it_did(tmp_path: Path) -> None:
    """Gates that the model lacks, one token's 8 choices on the first GPU, and choices elsewhere.

    In SGLang's rows, a quarter of all choices is here, so 0.75^8 of the tokens have none of them.
    """
    skewed = {"routing": "power_law", "gated": 0, "expert_parallel": 4, "kernel": "fused_moe"}
    rows = [
        row(2, SHAPES[0], framework="vllm", version="0.14.0", distinct_experts=2, **skewed),
        row(2, SHAPES[0], framework="vllm", version="0.24.0", distinct_experts=2, **skewed),
        row(128, SHAPES[0], framework="sglang", version="0.5.10", rank_pairs=256, **skewed),
        row(128, SHAPES[0], framework="sglang", version="0.5.14", rank_pairs=256, **skewed),
    ]
    table = load([written(tmp_path / "rows.csv", rows)]).tables["moe"]
    old, new, all_slots, own_pairs = (
        up(group) for group in sorted(prepare(table, "moe").groups, key=lambda each: each.index[0])
    )
    assert (list(old.groups), list(new.groups)) == ([8], [2])
    assert (old.n, list(new.n)) == (2 * 768, [768])
    assert list(own_pairs.m) == [256]
    assert list(all_slots.m) == pytest.approx([8 * 128 * (1 - 0.75**8)])


@pytest.mark.parametrize(
    ("gpu", "dtype", "kernel", "typical"),
    [
        ("H100", "mxfp4", "vllm_mxfp4moe_triton", True),
        ("H100", "mxfp4", "vllm_mxfp4moe_marlin", False),
        ("B200", "mxfp4", "vllm_mxfp4moe_marlin", False),
        ("B200", "nvfp4", "vllm_flashinfer_trtllm", True),
        ("L40S", "mxfp4", "vllm_mxfp4moe_marlin", True),
        ("H100", "bf16", "vllm_flashinfer_cutlass", False),
        ("B200", "bf16", "vllm_flashinfer_cutlass", True),
    ],
)
def test_questions_take_the_kernels_that_engines_choose(
    tmp_path: Path, gpu: str, dtype: str, kernel: str, typical: bool
) -> None:
    """Others have constants of their own, and no part in the general ones."""
    asked = row(8, SHAPES[0], gpu=gpu, dtype=dtype, kernel=kernel)
    (group,) = prepare(load([written(tmp_path / "rows.csv", [asked])]).tables["moe"], "moe").groups
    assert group.typical == typical


def test_each_kernel_counts_alike_for_constants_of_no_library(tmp_path: Path) -> None:
    """Of four series of one library and two of another, two of each, whole."""
    rows = [
        row(2**i, shape, framework=name)
        for name, count in (("vllm", 4), ("trtllm", 2))
        for shape in SHAPES[:count]
        for i in range(15)
    ]
    table = load([written(tmp_path / "rows.csv", rows)]).tables["moe"]
    (stage,) = (replace(stage, alike=30) for stage in STAGES if stage.kind == "moe")
    found = _alike(stage, table, prepare(table, "moe").groups)
    taken = table.loc[[label for group in found for label in group.index]]
    assert dict(taken["framework"].value_counts()) == {"vllm": 30, "trtllm": 30}
    assert set(taken["tokens"].value_counts()) == {4}
