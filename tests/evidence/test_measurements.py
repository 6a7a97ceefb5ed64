"""Rows in: recognised by their columns, resolved by GPU, refused where they cannot be true."""

import sys
from pathlib import Path

import pandas as pd
import pytest

from simulator.errors import MeasurementError
from simulator.evidence.fit.solver import with_constants
from simulator.evidence.predict.prepare import prepare
from simulator.evidence.rows.kinds import KINDS, attended_pairs, cache_bytes, recognise
from simulator.evidence.rows.reading import load
from simulator.inputs.hardware import load_hardware
from simulator.timing.constants import Variant, rates
from simulator.timing.roofline import operation_time

SHARED = Path(__file__).parents[3] / "shared" / "measurements"

DECODE = "gpu,batch,q_heads,kv_heads,head_dim,kv_len,latency_us"


def write(folder: Path, text: str, name: str = "rows.csv") -> Path:
    """Write rows made up for a test."""
    path = folder / name
    path.write_text(text.strip() + "\n", encoding="utf-8")
    return path


def test_columns_tell_the_kind_in_any_order() -> None:
    """A file is known by what it holds, not by its name, order or extra columns."""
    assert recognise(["latency_us", "note", "k", "n", "gpu", "m"]) == ["gemm"]
    assert recognise(DECODE.split(",")) == ["decode_attention"]
    assert recognise([*DECODE.split(","), "q_len"]) == ["prefill_attention"]
    assert recognise(["latency_us", "batch"]) == []


def test_every_kind_is_known_by_its_own_columns() -> None:
    """The columns that a kind needs are recognised as that kind."""
    for kind, columns in KINDS.items():
        assert recognise(columns.needs) == [kind]


def test_absent_columns_are_filled_in(tmp_path: Path) -> None:
    """A partial file means bf16, in a graph, its cache in the format of the rest."""
    path = write(tmp_path, "m,latency_us,k,n,gpu\n16,9.5,4096,4096,H100-SXM5-80GB")
    row = load([path]).tables["gemm"].iloc[0]
    assert (row["dtype"], row["timing"], row["framework"]) == ("bf16", "graph", "")
    assert row["gpu_id"] == "h100-sxm"
    assert row["time_s"] == pytest.approx(9.5e-6)
    decode = write(tmp_path, DECODE + ",dtype\nL40S,8,32,8,128,4096,300,FP8")
    assert load([decode]).tables["decode_attention"].iloc[0]["kv_dtype"] == "fp8"


def test_a_window_bounds_what_is_read(tmp_path: Path) -> None:
    """A decode row reads no more than its window; an empty window is no window; 0 is none."""
    lines = [f"L40S,8,32,8,128,4096,300,{window}" for window in ("1024", "", "0")]
    rows = load([write(tmp_path, "\n".join([DECODE + ",window", *lines]))])
    token = 2 * 8 * 128 * 2
    read = cache_bytes(rows.tables["decode_attention"])
    assert list(read) == [8 * 1024 * token, 8 * 4096 * token]
    assert [item.reason for item in rows.refused] == ["window is not a number of tokens"]


@pytest.mark.parametrize("window", [1, 3, 5, 8, 100])
def test_pairs_of_a_windowed_prefill(window: int) -> None:
    """Counted one by one: four queries at the end of seven keys."""
    rows = pd.DataFrame({"q_len": [4], "kv_len": [7], "causal": [1], "window": [float(window)]})
    pairs = sum(min(position, window) for position in (4, 5, 6, 7))
    assert list(attended_pairs(rows)) == [pairs]


def test_very_many_extra_columns_are_no_trouble(tmp_path: Path) -> None:
    """Three hundred columns that nobody knows are kept, and nothing warns of them."""
    names = [f"note_{i}" for i in range(300)]
    head = ",".join(["gpu,m,n,k,latency_us", *names])
    line = ",".join(["H100,16,4096,4096,9.5", *("1.5" if i % 2 else "x" for i in range(300))])
    row = load([write(tmp_path, f"{head}\n{line}")]).tables["gemm"].iloc[0]
    assert (row["note_298"], row["note_299"]) == ("x", 1.5)


def test_parquet_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suffix picks the reader; the rows are the same, or one line says what is missing."""
    path = write(tmp_path, DECODE + "\nL40S,8,32,8,128,4096,300")
    parquet = tmp_path / "rows.parquet"
    pd.read_csv(path).to_parquet(parquet)
    one, other = (load([file]).tables["decode_attention"] for file in (path, parquet))
    assert one.drop(columns="file").equals(other.drop(columns="file"))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MeasurementError, match=r"rows.parquet: .* pip install '.*\[parquet\]'"):
        load([parquet])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("8,32,8,128,4096,0", "latency_us is not a positive number"),
        ("8,32,8,128,4096,-3", "latency_us is not a positive number"),
        ("8,32,8,128,4096,", "latency_us is not a positive number"),
        ("8,32,8,128,4096,inf", "latency_us is not a positive number"),
        ("8,32,8,128,4096,fast", "latency_us is not a positive number"),
        ("8,32,8,128,none,300", "kv_len is not a size"),
        ("-8,32,8,128,4096,300", "batch is not a size"),
        ("8,32,5,128,4096,300", "q_heads is not a multiple of kv_heads"),
        ("1,32,8,128,16,0.2", "shorter than any launch (0.5 us)"),
        # 512 MiB of keys and values in 100 us; at most 96 MiB of them can come from L2.
        ("32,32,8,128,4096,100", "implies 4362 GB/s, the peak is 864"),
    ],
)
def test_a_row_that_cannot_be_true_is_refused_with_its_line(
    tmp_path: Path, row: str, reason: str
) -> None:
    """Physics and the columns' meaning decide, and the message says which line and why."""
    path = write(tmp_path, f"{DECODE}\nL40S,8,32,8,128,4096,300\n\nL40S,{row}")
    rows = load([path])
    assert rows.rows == 1
    assert [(item.line, item.reason) for item in rows.refused] == [(4, reason)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("num_gpus,message_bytes,latency_us\n1,1024,20", "num_gpus is not a number of GPUs"),
        (
            (
                "batch,q_heads,kv_heads,head_dim,q_len,kv_len,causal,latency_us\n"
                "1,32,8,128,512,512,perhaps,90"
            ),
            "causal is not 0 or 1",
        ),
        (
            (
                "model,context_tokens,samples,attention,tensor_parallel,step_ms\n"
                "mistral-7b,8192,4,standard,0,30"
            ),
            "tensor_parallel is not a number of GPUs",
        ),
        ("m,n,k,latency_us\n1e18,4096,4096,20", "m is not a size"),
    ],
)
def test_columns_that_may_be_absent_are_read_too(tmp_path: Path, text: str, reason: str) -> None:
    """What is there but says nothing is refused with its line, not lost."""
    head, line = text.split("\n")
    rows = load([write(tmp_path, f"gpu,{head}\nL40S,{line}")])
    assert rows.rows == 0
    assert [item.reason for item in rows.refused] == [reason]


def test_keep_suspect_keeps_what_has_a_time(tmp_path: Path) -> None:
    """Too fast is kept on request and still listed; a row without a time or its sizes never is."""
    lines = ("32,32,8,128,4096,100", "8,32,8,128,4096,nan", "8,32,8,128,,60", "8,32,5,128,4096,60")
    path = write(tmp_path, "\n".join([DECODE, *(f"L40S,{line}" for line in lines)]))
    rows = load([path], keep_suspect=True)
    assert rows.rows == 1
    assert [item.line for item in rows.suspect] == [2]
    assert [item.line for item in rows.refused] == [3, 4, 5]


def test_products_faster_than_the_matrix_units_are_refused(tmp_path: Path) -> None:
    """137 GFLOP in 100 us is more than an H100 can do, in fp8 it is not."""
    head = "gpu,dtype,m,n,k,latency_us\n"
    rows = "H100,bf16,4096,4096,4096,100\nH100,fp8,4096,4096,4096,100"
    loaded = load([write(tmp_path, head + rows)])
    assert [item.line for item in loaded.refused] == [2]
    assert "TFLOP/s" in loaded.refused[0].reason


def test_shared_prefixes_faster_than_the_memory_are_refused(tmp_path: Path) -> None:
    """One prefix of 2 GiB and 256 MiB of own tokens, at most 6 MiB of it from L2, at 696 GB/s."""
    head = "gpu,mode,batch,q_heads,kv_heads,head_dim,prefix_len,suffix_len,latency_us\n"
    rows = "\n".join(f"A40,shared,8,64,64,128,65536,1024,{time}" for time in (3300, 3600))
    loaded = load([write(tmp_path, head + rows)])
    assert [item.line for item in loaded.refused] == [2]
    assert "GB/s, the peak is 696" in loaded.refused[0].reason


def test_whole_steps_faster_than_their_weights_are_refused(tmp_path: Path) -> None:
    """13 GB of Llama-2-7B's layers take 6.5 ms at 2 TB/s, half as long on two GPUs or in 8 bits."""
    head = "gpu,model,batch,input_len,output_len,step_ms,weight_dtype,tp\n"
    rows = ("5,bf16,1", "9,bf16,1", "5,bf16,2", "5,int8,1", "0.1,int8,8")
    text = head + "\n".join(f"A100,llama-2-7b,1,128,128,{row}" for row in rows)
    loaded = load([write(tmp_path, text + "\nA100,mixtral-8x7b,1,128,128,5,bf16,1")])
    assert [item.line for item in loaded.refused] == [2, 6]
    head = "gpu,model,context_tokens,samples,attention,step_ms,tensor_parallel\n"
    text = "\n".join(f"A100,llama-2-7b,8192,4,standard,{row}" for row in ("5,1", "9,1", "5,2"))
    loaded = load([write(tmp_path, head + text)])
    assert [item.line for item in loaded.refused] == [2]
    assert "GB/s, the peak is 2039" in loaded.refused[0].reason


def test_out_of_memory_has_no_time_and_is_kept(tmp_path: Path) -> None:
    """A decode step that did not fit is a measurement too."""
    head = "gpu,model,context_tokens,samples,attention,status,step_ms\n"
    path = write(
        tmp_path,
        head + "H100,mistral-7b,8192,64,standard,oom,\nH100,mistral-7b,8192,1,standard,ok,",
    )
    rows = load([path])
    assert rows.tables["decode_step"]["status"].tolist() == ["oom"]
    assert [item.line for item in rows.refused] == [3]


def test_an_unknown_gpu_is_counted_not_guessed(tmp_path: Path) -> None:
    """A near name is another card: its rows stay apart."""
    path = write(tmp_path, f"{DECODE}\nL40X,8,32,8,128,4096,300\nL40S,8,32,8,128,4096,300")
    rows = load([path])
    found = rows.tables["decode_attention"]
    assert found["gpu"][found["gpu_id"].isna()].tolist() == ["L40X"]


def test_gpu_names_rows_without_one_and_selects_the_others(tmp_path: Path) -> None:
    """--gpu is the card of nameless rows, and a filter for the rest."""
    nameless = write(tmp_path, "m,n,k,latency_us\n16,4096,4096,20", "a.csv")
    named = write(tmp_path, "m,n,k,latency_us,gpu\n16,4096,4096,20,L40S\n16,4096,4096,20,H100")
    assert load([nameless, named], gpu="l40s").rows == 2
    with pytest.raises(MeasurementError, match=r"a\.csv, line 2: no GPU is named.*--gpu"):
        load([nameless])


def test_one_row_without_a_gpu_is_one_row_refused(tmp_path: Path) -> None:
    """Where others name theirs, a gap is that row's fault, not the file's."""
    path = write(tmp_path, "gpu,m,n,k,latency_us\nL40S,16,4096,4096,60\n,16,4096,4096,60")
    rows = load([path])
    assert rows.rows == 1
    assert [(item.line, item.reason) for item in rows.refused] == [(3, "no GPU is named")]
    assert load([path], gpu="l40s").rows == 2


def test_a_file_of_several_kinds_is_sorted_row_by_row(tmp_path: Path) -> None:
    """Columns that are empty in a row do not count for it."""
    path = write(
        tmp_path,
        "gpu,m,n,k,batch,q_heads,kv_heads,head_dim,kv_len,latency_us\n"
        "L40S,16,4096,4096,,,,,,60\nL40S,,,,8,32,8,128,4096,300",
    )
    tables = load([path]).tables
    assert {kind: len(table) for kind, table in tables.items()} == {
        "decode_attention": 1,
        "gemm": 1,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2", "rows of no known kind"),
        ("gpu,m,n,latency_us\nL40S,1,2,3", "it looks like gemm, but lacks k"),
        ("", "cannot read .*: it is empty"),
    ],
)
def test_a_file_of_no_kind_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    """The message names the file and what is missing."""
    path = write(tmp_path, text)
    with pytest.raises(MeasurementError, match=message) as problem:
        load([path])
    assert str(path) in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_file_that_is_no_text_is_one_clear_line(tmp_path: Path) -> None:
    """As for every other file."""
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MeasurementError, match=r"rows\.csv: it is not a text file$"):
        load([path])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            "gpu,batch_size,num_heads,num_kv_heads,head_size,seq_len,time_ms",
            "looks like decode_attention, but lacks batch, q_heads, kv_heads and 3 more",
        ),
        (
            "gpu,collective,world_size,message_bytes,time",
            "looks like all_reduce, but lacks num_gpu",
        ),
        (
            "gpu,batch,heads,latent_dim,rope_dim,kv_dtype,latency_us",
            "looks like mla_decode, but lacks kv_len",
        ),
        (
            "gpu,batch,heads,kv_heads,head_dim,seq_len,latency_us",
            "looks like decode_attention, but lacks q_heads, kv_len",
        ),
        ("customer,invoice,date", "like those of none of decode_attention"),
    ],
)
def test_a_foreign_table_is_told_the_kind_it_looks_like(
    tmp_path: Path, columns: str, message: str
) -> None:
    """Words that few kinds share tell more than the number of missing columns."""
    path = write(tmp_path, f"{columns}\n" + ",".join("1" for _ in columns.split(",")))
    with pytest.raises(MeasurementError, match=message):
        load([path])


def test_the_rest_of_a_series_with_many_impossible_rows_is_distrusted(tmp_path: Path) -> None:
    """Three of four rows beat the memory of an L40S: the fourth did something else, too."""
    rows = [f"L40S,vllm,x,{m},8192,8192,{us}" for m, us in ((1, 20), (2, 20), (4, 20), (8, 900))]
    rows.append("L40S,vllm,x,1,4096,16384,900")
    found = load([write(tmp_path, "\n".join(["gpu,framework,kernel,m,n,k,latency_us", *rows]))])
    assert len(found.refused) == 3
    assert found.tables["gemm"]["distrusted"].tolist() == [True, False]
    assert found.distrusted == {"gemm L40S vllm x": 1}


def test_a_single_impossible_row_does_not_taint_its_series(tmp_path: Path) -> None:
    """An outlier is refused alone."""
    rows = [f"L40S,vllm,x,{m},8192,8192,{us}" for m, us in ((1, 20), (2, 900), (4, 900))]
    found = load([write(tmp_path, "\n".join(["gpu,framework,kernel,m,n,k,latency_us", *rows]))])
    assert len(found.refused) == 1
    assert not found.distrusted


def test_a_row_may_say_itself_that_its_series_is_not_plausible(tmp_path: Path) -> None:
    """Public tables mark such series."""
    text = "gpu,m,n,k,series_plausible,latency_us\nL40S,1,8192,8192,0,900\nL40S,1,8192,8192,1,900"
    found = load([write(tmp_path, text)])
    assert found.tables["gemm"]["distrusted"].tolist() == [True, False]


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    """No traceback for a mistyped name."""
    with pytest.raises(MeasurementError, match="no such file"):
        load([tmp_path / "absent.csv"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/measurements on this machine")
def test_the_shared_rows_are_all_recognised_and_believed() -> None:
    """Every kind is there, every row is kept, and only the L40 has no profile."""
    second = (
        *("mla_decode", "mla_prefill", "mla_module", "linear_attention", "sparse_attention"),
        "serving_steps",
    )
    rows = load([SHARED, *(SHARED / "second" / f"{kind}.csv" for kind in second)])
    # Some rows of experts are refused: see test_expert_rows.
    assert {*rows.tables, "moe"} == set(KINDS)
    assert rows.refused == ()
    for table in rows.tables.values():
        assert set(table["gpu"][table["gpu_id"].isna()]) <= {"L40"}


QUANTISE = "gpu,framework,dtype,timing,op,rows,width,bytes,latency_us"


def test_differences_of_quantise_kernels_are_added_to_the_static_one(tmp_path: Path) -> None:
    """3 us and 1.2 us more are 4.2 us; clipped to nothing it is as fast; alone it stays."""
    lines = [
        "H100,vllm,fp8,graph,static_quantize,8,4096,98304,3",
        "H100,vllm,fp8,graph,dynamic_minus_static,8,4096,98304,1.2",
        "H100,vllm,fp8,graph,static_quantize,9,4096,110592,3",
        "H100,vllm,fp8,graph,dynamic_minus_static,9,4096,110592,0",
        "H100,vllm,fp8,graph,dynamic_minus_static,16,4096,196608,1.5",
        "H100,trtllm,fp8,graph,dynamic_minus_static,8,4096,98304,1.5",
    ]
    loaded = load([write(tmp_path, "\n".join([QUANTISE, *lines]))])
    table = loaded.tables["elementwise"].set_index("line")
    assert not loaded.refused
    assert table["op"].tolist()[1::2] == ["dynamic_quantize"] * 2 + ["dynamic_minus_static"]
    assert table["latency_us"].tolist() == pytest.approx([3, 4.2, 3, 3, 1.5, 1.5])
    assert table.loc[3, "time_s"] == pytest.approx(4.2e-6)
    prepared = prepare(loaded.tables["elementwise"], "elementwise")
    assert len(prepared.skipped) == 2
    assert "difference of two timings" in next(iter(prepared.skipped.values()))


def test_the_host_s_time_is_no_kernel_s(tmp_path: Path) -> None:
    """Such rows are not predicted, and their neighbours tell a fit nothing of fixed times."""
    lines = [
        "gpu,framework,kernel,dtype,m,n,k,latency_us,weights_rotated,host_bound",
        "H100,vllm,deep,fp8_block,8,4096,4096,77,1,1",
        "H100,vllm,deep,fp8_block,8192,8192,8192,900,1,0",
        "H100,sglang,deep,fp8_block,8,4096,4096,15,6,0",
    ]
    table = load([write(tmp_path, "\n".join(lines))]).tables["gemm"]
    prepared = prepare(table, "gemm")
    assert ["host" in why for why in prepared.skipped.values()] == [True]
    used = {group.variants[0].library: group.determines for group in prepared.groups}
    assert used == {"vllm": False, "sglang": True}


@pytest.mark.parametrize(("copies", "hot"), [("1", True), ("2", False), ("", False)])
def test_copies_of_the_weights_decide_whether_l2_holds_them(
    tmp_path: Path, copies: str, hot: bool
) -> None:
    """33.5 MB of weights in H100's 50 MiB: one copy fits, two or the usual six do not."""
    lines = ["gpu,m,n,k,latency_us,weights_rotated", f"H100,8,4096,4096,15,{copies}"]
    table = load([write(tmp_path, "\n".join(lines))]).tables["gemm"]
    (product,) = prepare(table, "gemm").groups[0].operations
    assert (product.reused_bytes.item() > 0) == hot


def test_rows_that_turn_scales_have_time_around_their_product(tmp_path: Path) -> None:
    """SGLang's rows with scales of blocks on B200 only: H100's kernel takes them as they are."""
    lines = ["gpu,framework,dtype,m,n,k,latency_us,weights_rotated"]
    lines += [f"{gpu},sglang,fp8_block,8,4096,512,15,6" for gpu in ("B200", "H100")]
    lines += ["B200,sglang,fp8,8,4096,512,15,6", "B200,vllm,fp8_block,8,4096,512,15,6"]
    groups = prepare(load([write(tmp_path, "\n".join(lines))]).tables["gemm"], "gemm").groups
    around = [group for group in groups if group.around]
    assert [(each.gpu_id, each.variants[0]) for each in around] == [
        ("b200-sxm", Variant("sglang", "fp8_block"))
    ]
    card = load_hardware("b200-sxm")
    one, more = (
        around[0].predict(with_constants(card, {"sglang_fp8_block_module_us": value})).item()
        for value in (1.0, 3.5)
    )
    assert more - one == pytest.approx(2.5e-6)


def test_8_bit_products_quantise_first(tmp_path: Path) -> None:
    """x is read in 16 bits and written in 8; for vLLM's fp8 with one scale, which takes steps."""
    lines = ["gpu,framework,dtype,m,n,k,latency_us", "H100,vllm,fp8,8,4096,512,15"]
    lines += ["H100,sglang,fp8_block,8,4096,512,15", "H100,vllm,bf16,8,4096,512,15"]
    groups = prepare(load([write(tmp_path, "\n".join(lines))]).tables["gemm"], "gemm").groups
    kernels = {group.setup.weight_dtype: group.operations for group in groups}
    assert [item.kind for item in kernels["fp8"]] == ["quantise", "gemm"]
    assert [item.kind for item in kernels["bf16"]] == ["gemm"]
    one_scale, own_scale = kernels["fp8"][0], kernels["fp8_block"][0]
    assert one_scale.bytes_read.item() == own_scale.bytes_read.item() == 8 * 512 * 2
    assert one_scale.bytes_written.item() == 8 * 512
    assert one_scale.thread_blocks.item() == own_scale.thread_blocks.item() == 8
    assert not own_scale.serial_steps


@pytest.mark.parametrize(
    ("gpu", "width", "measured_us"), [("B200", 32, 105), ("B200", 16384, 503), ("H200", 32, 118)]
)
def test_one_scale_for_many_rows_takes_what_rows_of_few_columns_take(
    tmp_path: Path, gpu: str, width: int, measured_us: float
) -> None:
    """16,384 rows and 32 or 64 columns take B200 110 and 558 us, H200 123 us (aiconfigurator).

    Of these 5 us are launches, and 50 us are what the product of 16,384 values reads.
    """
    lines = ["gpu,framework,dtype,m,n,k,latency_us", f"{gpu},vllm,fp8,16384,64,{width},110"]
    (group,) = prepare(load([write(tmp_path, "\n".join(lines))]).tables["gemm"], "gemm").groups
    card = load_hardware(group.gpu_id)
    time = operation_time(group.operations[0], rates(card), "graph")
    assert time.memory_s.item() * 1e6 == pytest.approx(measured_us, rel=0.1)


def test_elementwise_kernels_are_known_by_what_they_do(tmp_path: Path) -> None:
    """Each name its kind; SGLang's quantisation is four plain kernels of 27 bytes a value."""
    names = ["rmsnorm", "silu_mul", "rope", "embedding", "static_quantize", "residual_add"]
    lines = [f"H100,{op},64,4096,1048576,20,vllm" for op in names]
    lines.append("H100,static_quantize,64,4096,786432,20,sglang")
    text = "\n".join(["gpu,op,rows,width,bytes,latency_us,framework", *lines])
    groups = prepare(load([write(tmp_path, text)]).tables["elementwise"], "elementwise").groups
    found = {(item.name, item.kind): item for group in groups for item in group.operations}
    kinds = ["norm", "activation", "rotary", "gather", "quantise", "elementwise"]
    plain = found.pop(("static_quantize", "elementwise"))
    assert found.keys() == set(zip(names, kinds, strict=True))
    assert (plain.launches, plain.bytes_moved.item()) == (4, 27 * 64 * 4096)


def test_copies_that_are_no_number_are_refused(tmp_path: Path) -> None:
    """With the reason, like any other size."""
    lines = ["gpu,m,n,k,latency_us,weights_rotated", "H100,8,4096,4096,15,many"]
    (refusal,) = load([write(tmp_path, "\n".join(lines))]).refused
    assert refusal.reason == "weights_rotated is not a number of copies"
