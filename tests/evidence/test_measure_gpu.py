"""On a CUDA card: every claim of ``bifurcate measure``, in about two minutes (pytest -m gpu).

Ordered so that the first failure is the plainest: operators, kernels, graphs, then whole runs, and
processes that break their device last.
"""

import csv
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from layouts import lay_out  # noqa: E402

from simulator.evidence.kernels import KERNELS  # noqa: E402
from simulator.evidence.kernels.layout import attention_inputs  # noqa: E402
from simulator.evidence.kernels.operators import flash  # noqa: E402
from simulator.evidence.measure import counters, grid  # noqa: E402
from simulator.evidence.measure.cells import (  # noqa: E402
    MODES,
    AttentionCell,
    Cell,
    GemmCell,
    MemoryCell,
    Selection,
)
from simulator.evidence.measure.correctness import TOLERANCES, reference_attention, relative_error  # noqa: E402
from simulator.evidence.measure.device import TORCH_DTYPES, CudaDevice, is_out_of_memory  # noqa: E402
from simulator.evidence.measure.predict import Repeats  # noqa: E402
from simulator.evidence.measure.rows import FILES  # noqa: E402
from simulator.evidence.measure.runner import Settings, run  # noqa: E402
from simulator.evidence.measure.store import Store, now  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # What other packages warn about on this machine is not what is tested here.
    pytest.mark.filterwarnings("default"),
]

REPOSITORY = Path(__file__).parents[2]
FLEX = "bifurcated_flex"
FORMATS = sorted(TORCH_DTYPES)
# prompts, samples, heads, kv_heads, head_dim, context and own tokens
SHAPES = {
    "grouped": (1, 4, 32, 8, 128, 1024, 64),
    "odd group, two prompts, one own token": (2, 3, 6, 2, 64, 300, 1),
    "multi-query": (1, 5, 7, 1, 128, 257, 17),
    "multi-head, 80 wide": (1, 16, 4, 4, 80, 129, 33),
    "256 wide": (1, 2, 24, 2, 256, 200, 5),
    "no own tokens": (1, 2, 4, 2, 64, 130, 0),
    "a long context for few heads": (1, 1, 2, 2, 128, 9000, 3),
}
# Each shape is compiled for seconds in each format.
FLEX_SHAPES = {
    "grouped": ("bf16", "fp16", "fp32"),
    "odd group, two prompts, one own token": ("bf16",),
}


@pytest.fixture(scope="module")
def card() -> CudaDevice:
    """The card."""
    return CudaDevice()


@pytest.fixture(autouse=True)
def _no_grad() -> object:
    """As a run does."""
    with torch.no_grad():
        yield


def sizes_of(shape: tuple[int, ...]) -> AttentionCell:
    """Sizes by name."""
    names = ("prompts", "samples", "heads", "kv_heads", "head_dim")
    tokens = ("context_tokens", "decoded_tokens")
    sizes = dict(zip((*names, *tokens), shape, strict=True))
    return AttentionCell(kernel="bifurcated_flash", **sizes)


@pytest.mark.parametrize("dtype", [*FORMATS, "fp64"])
@pytest.mark.parametrize("tokens", [1, 100, 8192])
@pytest.mark.parametrize("expanded", [False, True])
def test_the_fused_operator_and_its_log_sum_exp(
    card: CudaDevice, dtype: str, tokens: int, *, expanded: bool
) -> None:
    """Output and natural log-sum-exp equal float64's, with a batch of stride 0 and split keys."""
    kind = TORCH_DTYPES.get(dtype, torch.float64)
    query = card.normal((3, 2, 5, 64), kind)
    stored = 1 if expanded else 3
    keys, values = (card.normal((stored, 2, tokens, 64), kind).expand(3, -1, -1, -1) for _ in "kv")
    output, log_sum_exp = flash(query, keys, values)
    logits = query.double() @ keys.double().transpose(-1, -2) / 8
    wanted = torch.softmax(logits, -1) @ values.double()
    assert relative_error(output, wanted) < TOLERANCES.get(kind, 1e-12)
    assert log_sum_exp.shape == (3, 2, 5)
    assert log_sum_exp.dtype == (torch.float64 if dtype == "fp64" else torch.float32)
    difference = (log_sum_exp.double() - torch.logsumexp(logits, -1)).abs().max()
    assert float(difference) < 1e-4


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_kernel_is_right(card: CudaDevice, shape: str, dtype: str) -> None:
    """All kernels of the registry, each on caches as it wants them, against float64."""
    kind = TORCH_DTYPES[dtype]
    inputs = attention_inputs(sizes_of(SHAPES[shape]), "shared", kind, card.normal)
    wanted = reference_attention(*inputs)
    errors = {}
    for name, kernel in KERNELS.items():
        if name == FLEX and dtype not in FLEX_SHAPES.get(shape, ()):
            continue
        given = lay_out(kernel.layout, *inputs)
        errors[name] = relative_error(kernel.function(*given).view(wanted.shape), wanted)
    assert {name: error for name, error in errors.items() if error > TOLERANCES[kind]} == {}


def test_large_logits_stay_finite(card: CudaDevice) -> None:
    """A hundred times the usual logits: nothing overflows, in float16 neither."""
    for kind in TORCH_DTYPES.values():
        inputs = attention_inputs(sizes_of(SHAPES["grouped"]), "shared", kind, card.normal)
        inputs[0].mul_(100)
        for name in ("standard_flash", "bifurcated_flash", "bifurcated_flash_chunked"):
            given = lay_out(KERNELS[name].layout, *inputs)
            assert bool(torch.isfinite(KERNELS[name].function(*given)).all()), name


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_a_replayed_graph_computes_anew(card: CudaDevice, name: str) -> None:
    """With other numbers in the same buffers a replay gives what a call gives for them.

    So what is captured and timed is the whole computation.
    """
    kernel = KERNELS[name]
    sizes = sizes_of(SHAPES["grouped"])
    given = attention_inputs(sizes, kernel.layout, torch.bfloat16, card.normal)
    outputs = []
    watch = card.stopwatch(lambda: outputs.append(kernel.function(*given)), "graph")
    captured = outputs[-1]
    for part in given:
        part.normal_()
    assert watch() > 0
    replayed = captured.clone()
    # What was left of the numbers before would be wrong by more than 1.
    assert relative_error(replayed, kernel.function(*given)) < TOLERANCES[torch.bfloat16]
    assert len(outputs) == 2  # the warm-up and the capture: a replay calls nothing


def test_a_graph_hides_the_host_and_an_eager_pass_does_not(card: CudaDevice) -> None:
    """A thousand tiny kernels: launched one by one they take longer than replayed.

    What a replay waits behind grows with its launch, but not without end.
    """
    tensor = card.normal((128,), torch.float32)

    def one_pass() -> None:
        for _ in range(1000):
            tensor.mul_(1.0)

    times = {}
    for mode in MODES:
        watch = card.stopwatch(one_pass, mode)
        start = time.perf_counter()
        times[mode] = sorted(watch() for _ in range(12))[6]
        assert time.perf_counter() - start < 0.5
    assert 500e-6 < times["graph"] < times["eager"]


def test_clock_temperature_and_facts_are_known(card: CudaDevice) -> None:
    """What every row and the environment record say of the card."""
    card.warm_up()
    reading, facts = card.reading(), card.facts()
    assert reading.sm_clock_mhz is not None
    assert 100 < reading.sm_clock_mhz < 4000
    assert reading.temperature_c is not None
    assert 10 < reading.temperature_c < 110
    assert facts["driver_version"]
    assert 2**20 < card.l2_bytes < 2**30


def measured(cells: tuple[Cell, ...], folder: Path) -> list[dict[str, str]]:
    """Run cells on the card and return their rows."""
    settings = Settings(timing=Repeats(most=10))
    plan = Selection(name="test", cells=cells)
    list(run(plan, CudaDevice(), Store(folder), gpu=None, settings=settings))
    rows = rows_of(folder)
    assert [row["cell"] for row in rows] == sorted(cell.key for cell in cells)
    return rows


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a folder, by cell."""
    rows: list[dict[str, str]] = []
    for name in FILES.values():
        if (folder / name).exists():
            with (folder / name).open(newline="") as stream:
                rows += csv.DictReader(stream)
    return sorted(rows, key=lambda row: row["cell"])


def attention_cells(dtype: str = "bf16", l2: str = "cold") -> tuple[AttentionCell, ...]:
    """Every kernel at 4 samples of 1K tokens, as a graph and eager."""
    first = next(cell for cell in grid.default_grid().cells if isinstance(cell, AttentionCell))
    point = replace(first, kv_heads=8, context_tokens=1024, samples=4, dtype=dtype, l2=l2, stage=0)
    return tuple(replace(point, kernel=kernel, mode=mode) for kernel in KERNELS for mode in MODES)


def troubles(rows: list[dict[str, str]]) -> dict[str, str]:
    """Rows that are not ok, with what they say."""
    return {row["cell"]: f"{row['status']}: {row['note']}" for row in rows if row["status"] != "ok"}


@pytest.mark.parametrize("dtype", FORMATS)
def test_every_kernel_has_a_graph_and_an_eager_row(tmp_path: Path, dtype: str) -> None:
    """The whole path: inputs, check, capture, timing, row; clocks in each, and L2 cold."""
    rows = measured(attention_cells(dtype), tmp_path)
    assert troubles(rows) == {}
    assert all(row["sm_clock_mhz_before"] and row["sm_clock_mhz_after"] for row in rows)
    assert {row["l2_state"] for row in rows} == {"cold"}
    assert all(int(row["repeats"]) >= 5 for row in rows)


def test_a_warm_l2_is_not_slower_than_a_cold_one(tmp_path: Path) -> None:
    """4 MB of context in L2: bifurcated flash is no slower from there, and its row says warm."""
    times = {}
    for l2 in ("cold", "warm"):
        cells = tuple(
            cell
            for cell in attention_cells(l2=l2)
            if (cell.kernel, cell.mode) == ("bifurcated_flash", "graph")
        )
        (row,) = measured(cells, tmp_path / l2)
        assert (row["status"], row["l2_state"]) == ("ok", l2)
        times[l2] = float(row["latency_us"])
    assert times["warm"] < 1.1 * times["cold"]


def test_every_other_kind_has_its_rows(tmp_path: Path) -> None:
    """A layer's products and elementwise kernels at 16 tokens, and streams in L2 and out of it."""
    kept = [
        cell
        for cell in grid.default_grid().cells
        if (cell.kind == "gemm" and cell.m == 16)
        or (cell.kind == "elementwise" and cell.rows == 16)
        or (cell.kind == "memory" and cell.working_set_bytes in (2**24, 2**30))
    ]
    assert {cell.kind for cell in kept} == {"gemm", "elementwise", "memory"}
    assert troubles(measured(tuple(kept), tmp_path)) == {}


def test_a_copy_and_a_product_run_at_the_cards_speed(tmp_path: Path) -> None:
    """Times are of the right size: 100 GB/s to 20 TB/s, and 20 to 5000 TFLOP/s."""
    copy = MemoryCell(test="stream_copy", working_set_bytes=2**32, dtype="fp32")
    product = GemmCell(m=8192, n=8192, k=8192)
    rows = {row["cell"]: row for row in measured((copy, product), tmp_path)}
    assert 100 < float(rows[copy.key]["gb_per_s"]) < 20_000
    tflops = 2 * 8192**3 / float(rows[product.key]["latency_us"]) / 1e6
    assert 20 < tflops < 5000


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_whole_step_runs_as_graph_and_eager(tmp_path: Path, dtype: str) -> None:
    """A two-layer 7B step: every kernel right in both modes, a graph no slower than eager."""
    model = grid.load_model("llama-2-7b")
    layers = model.layer_groups[0].but(count=2)
    small = model.but(layers=2, layer_groups=(layers,))
    cells = tuple(
        replace(cell, model=small, dtype=dtype)
        for cell in grid.default_grid().cells
        if cell.kind == "step"
        and (cell.model.kv_heads, cell.samples, cell.context_tokens) == (32, 4, 1024)
    )
    rows = measured(cells, tmp_path)
    assert troubles(rows) == {}
    times = {(row["implementation"], row["execution"]): float(row["step_ms"]) for row in rows}
    assert times["bifurcated_flash", "graph"] < 1.1 * times["bifurcated_flash", "eager"]


def test_running_out_of_memory_is_a_row_and_no_end(tmp_path: Path) -> None:
    """Copies for 4096 samples fit on no card: they say so, what shares the context is timed."""
    cells = tuple(
        replace(cell, samples=4096, context_tokens=65536)
        for cell in attention_cells()
        if cell.kernel in ("standard_flash", "bifurcated_flash")
    )
    rows = measured(cells, tmp_path)
    status = {(row["implementation"], row["timing"]): row["status"] for row in rows}
    assert status == {
        ("standard_flash", "graph"): "oom",
        ("standard_flash", "eager"): "oom",
        ("bifurcated_flash", "graph"): "ok",
        ("bifurcated_flash", "eager"): "ok",
    }
    assert all(row["note"].startswith("seen: ") for row in rows if row["status"] == "oom")


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """The command itself, stopped by its time limit, then run again: no row twice, none lost."""
    command = (
        *(sys.executable, "-m", "simulator", "measure", "-o", str(tmp_path), "--json"),
        *("--only", "gemm", "--only", "memory"),
    )
    results = []
    for limit in ("0.02", "5"):
        done = subprocess.run(
            [*command, "--time-limit", limit],
            cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    assert results[0]["stopped"] == "time limit reached"
    assert results[1]["done"] == results[1]["cells"]
    keys = [row["cell"] for row in rows_of(tmp_path)]
    assert len(keys) == len(set(keys)) == results[1]["cells"]
    record = json.loads((tmp_path / "environment.json").read_text())
    assert len(record["runs"]) == 2
    assert record["runs"][0]["before"]["sm_clock_mhz"]


def test_hardware_counters_see_the_accounts_bytes(card: CudaDevice) -> None:
    """Device bytes read are those of the account: each key once, or once for every sample."""
    ncu = counters.find_ncu()
    if ncu is None:
        pytest.skip("Nsight Compute is not installed")
    cells = [
        replace(cell, kernel=kernel, context_tokens=8192, samples=16)
        for cell in attention_cells()[:1]
        for kernel in ("bifurcated_flash", "standard_flash", "bifurcated_einsum")
    ]
    sm_count = int(str(card.facts()["sm_count"]))
    rows = list(counters.count(ncu, cells, card.card, sm_count=sm_count, at=now()))
    assert [row["status"] for row in rows] == ["ok"] * len(cells)
    shares = {
        row["implementation"]: float(row["bytes_read"]) / float(row["account_bytes_read"])
        for row in rows
    }
    assert 0.9 < shares["standard_flash"] < 1.2, shares
    # Partial results and logits are read again too, mostly from L2.
    assert all(0.3 < share < 1.2 for share in shares.values()), shares


def test_memory_that_runs_out_in_a_capture_leaves_a_usable_device(card: CudaDevice) -> None:
    """The error is one of memory, the stream is left, and the next graph is captured and timed."""
    before = torch.cuda.current_stream()

    def greedy() -> None:
        if torch.cuda.is_current_stream_capturing():
            torch.empty(2**44, dtype=torch.uint8, device=card.torch_device)

    with pytest.raises(RuntimeError) as caught:
        card.stopwatch(greedy, "graph")
    assert is_out_of_memory(caught.value)
    assert torch.cuda.current_stream() == before
    card.release(thorough=True)
    card.check_usable()
    tensor = card.normal((2**20,), torch.float32)
    assert card.stopwatch(lambda: tensor.mul_(1.0), "graph")() > 0


# A run in which one kernel does something to the device; printed at the end: rows by status.
BREAKING = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from simulator.evidence.kernels import standard
from simulator.evidence.measure import grid
from simulator.evidence.measure.device import CudaDevice
from simulator.evidence.measure.cells import AttentionCell, Selection
from simulator.evidence.measure.predict import Repeats
from simulator.evidence.measure.runner import Settings, run
from simulator.evidence.measure.store import Store

name, folder = "standard_flash_expanded", Path(sys.argv[1])
kernel = standard.standard_flash_expanded

def attend(*inputs):
    output = kernel(*inputs)
    {fault}
    return output

standard.standard_flash_expanded = attend
first = next(cell for cell in grid.default_grid().cells if isinstance(cell, AttentionCell))
cells = tuple(
    replace(first, kernel=other, kv_heads=8, context_tokens=1024, samples=4, mode=mode)
    for other in ("standard_flash", name, "bifurcated_flash") for mode in {modes}
)
with torch.no_grad():
    plan, settings = Selection(name="x", cells=cells), Settings(timing=Repeats(most=5))
    list(run(plan, CudaDevice(), Store(folder), gpu=None, settings=settings))
"""
FAULTS = {
    # A wait is not allowed in a capture; launched one by one the kernel is right.
    "waits": ("torch.cuda.synchronize()", ("graph", "eager")),
    # An index far out of bounds stops the device for this process.
    "out of bounds": (
        "torch.zeros(4, device='cuda')[torch.full((1,), 10**6, device='cuda')]",
        ("graph",),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_kernel_that_breaks_the_device_has_a_row_and_the_rest_is_measured(
    tmp_path: Path, fault: str
) -> None:
    """However many processes it takes: the culprit's rows are errors, all others ok."""
    code, modes = FAULTS[fault]
    ends = []
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-c", BREAKING.format(fault=code, modes=modes), str(tmp_path)],
            cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        ends.append(done.returncode)
        if done.returncode == 0:
            break
        assert "run the same command again" in done.stderr, done.stderr[-2000:]
    assert ends[-1] == 0
    rows = rows_of(tmp_path)
    assert len(rows) == 3 * len(modes)
    bad = {(row["implementation"], row["timing"]) for row in rows if row["status"] == "error"}
    assert bad == {("standard_flash_expanded", "graph")}
