"""Rows of linear attention: how they are read, predicted and fitted."""

import numpy as np
import pytest

from simulator.evidence.fit.calibrate import _stage
from simulator.evidence.fit.solver import with_constants
from simulator.evidence.fit.stages import STAGES
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.predict.validate import validate
from simulator.evidence.rows.reading import load
from simulator.inputs.hardware import load_hardware

HEAD = (
    "gpu,framework,family,phase,op,kernel,timing,batch,seq_len,d_conv,num_k_heads,head_k_dim,"
    "num_v_heads,head_v_dim,state_bytes_per_element,latency_us"
)


def line(**changed: object) -> str:
    """Return a row: one decode step of Gated DeltaNet, as far as nothing else is said."""
    row = {
        "gpu": "H100-SXM5-80GB",
        "framework": "sglang",
        "family": "gdn",
        "phase": "decode",
        "op": "recurrence",
        "kernel": "fused_recurrent",
        "timing": "graph",
        "batch": 256,
        "seq_len": 1,
        "d_conv": 4,
        "num_k_heads": 16,
        "head_k_dim": 128,
        "num_v_heads": 32,
        "head_v_dim": 128,
        "state_bytes_per_element": 4,
        "latency_us": 360.0,
        **changed,
    }
    return ",".join(str(row[name]) for name in HEAD.split(","))


def read(tmp_path, *lines: str):  # noqa: ANN001, ANN201
    """Write a file of rows and read it."""
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([HEAD, *lines]) + "\n", encoding="utf-8")
    return load([path])


def operations(tmp_path, **changed: object):  # noqa: ANN001, ANN201
    """Return the operations of one row."""
    (group,) = prepare(
        read(tmp_path, line(**changed)).tables["linear_attention"], "linear_attention"
    ).groups
    return group.operations


def test_a_row_becomes_the_kernel_that_was_timed(tmp_path) -> None:  # noqa: ANN001
    """256 sequences x 32 heads x 128 x 128 values of four bytes, read and written."""
    (found,) = operations(tmp_path)
    assert found.kind == "recurrence"
    states = 256 * 32 * 128 * 128 * 4
    assert found.bytes_moved == pytest.approx(2 * states + 256 * (8192 + 4096) * 2)
    # A replay finds the states in the place where the last one wrote them.
    assert found.bytes_moved - found.reused_footprint_bytes == pytest.approx(states)


def test_tensorrt_llm_keeps_states_in_16_bits(tmp_path) -> None:  # noqa: ANN001
    """Rows without the size of a state's values take the library's."""
    four, two = (
        operations(tmp_path, framework=name, state_bytes_per_element="")[0].bytes_moved
        for name in ("sglang", "trtllm")
    )
    inputs = 256 * (8192 + 4096) * 2
    assert (two - inputs) * 2 == pytest.approx(four - inputs)


def test_a_fused_kernel_is_one_operation_with_all_bytes(tmp_path) -> None:  # noqa: ANN001
    """A convolution and a recurrence in one kernel move the bytes of both."""
    both, alone, conv = (
        sum(item.bytes_moved for item in operations(tmp_path, op=op, family="kda"))
        for op in ("conv+recurrence", "recurrence", "conv")
    )
    assert both == pytest.approx(alone + conv)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"family": "mamba2"}, "scan of Mamba-2 is not known"),
        ({"op": "conv", "timing": "eager"}, "time of their host's code"),
        ({"phase": "training"}, "phase 'training'"),
    ],
)
def test_what_no_rows_determine_is_skipped_with_a_reason(tmp_path, changed, reason) -> None:  # noqa: ANN001
    """The rest of the file is predicted."""
    result = validate(read(tmp_path, line(**changed), line()))
    assert len(result.rows) == 1
    assert [reason in text for text in result.skipped] == [True]


def test_a_state_moved_faster_than_memory_is_refused(tmp_path) -> None:  # noqa: ANN001
    """1.07 GB in 100 us is three times the bandwidth of an H100."""
    found = read(tmp_path, line(latency_us=100.0), line())
    assert [item.reason.endswith("the peak is 3350") for item in found.refused] == [True]


def test_the_fit_recovers_the_constants_of_its_rows(tmp_path) -> None:  # noqa: ANN001
    """Rows predicted from known constants give these back."""
    sizes = [
        {"phase": phase, "op": op, "batch": batch, "seq_len": length, "num_v_heads": heads}
        for heads in (16, 32, 64)
        for batch in (1, 16, 256)
        for phase, op, length in (
            ("decode", "conv", 1),
            ("decode", "recurrence", 1),
            ("verify", "recurrence", 4),
            ("prefill", "conv", 512),
            ("prefill", "recurrence", 64),
            ("prefill", "recurrence", 2048),
        )
    ]
    table = read(tmp_path, *(line(latency_us=1e6, **size) for size in sizes)).tables
    rows = table["linear_attention"]
    gpu = load_hardware("h100-sxm").but(fitted={})
    truth = {
        "convolution_launch_us": 2.5,
        "convolution_sm_gb_per_s": 15.0,
        "recurrence_launch_us": 4.0,
        "recurrence_serial_us": 1.5,
        "recurrence_bandwidth_fraction": 0.8,
        "chunk_scan_serial_us": 2.0,
    }
    for group in prepare(rows, "linear_attention").groups:
        rows.loc[group.index, "time_s"] = group.predict(with_constants(gpu, truth))
    (stage,) = [stage for stage in STAGES if stage.kind == "linear_attention"]
    start = with_constants(gpu, {name: value * 1.3 for name, value in truth.items()})
    groups = prepare(rows, stage.kind).groups
    (found,) = _stage(stage, rows, groups, start.but(fitted={}))
    for name, value in truth.items():
        assert found.fitted.constants[name] == pytest.approx(value, rel=0.05), name
    assert np.median(np.abs(found.fitted.residuals)) < 0.01
