"""trace: a table of a function's operators, totals, time, and a line for every mistake."""

import csv
import io
import re
import shlex
from pathlib import Path

import pytest
from command_line import bifurcate
from reference import section

pytest.importorskip("torch")

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs" / "tracing.md").read_text(encoding="utf-8")
CODE = '''\
"""Attention as somebody writes it."""

import torch


def attend(query, context_keys, context_values, decoded_keys, decoded_values):
    print("talks while it is traced")
    return torch.nn.functional.relu(query)


def fails(*tensors):
    return tensors[0] + tensors[1]


def misses(*tensors):
    return {}["answer"]


def asks(*tensors):
    return tensors[0].sum().item()


def leaves(*tensors):
    raise SystemExit(3)


def double(a, b):
    return a @ b.to(a.dtype)


layer = torch.nn.Linear(64, 128, dtype=torch.bfloat16)
number = 3
Layer = torch.nn.Linear
'''


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of a user's own, in the working directory."""
    (tmp_path / "attention_of_mine.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import no_such_module\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_kernel_by_its_name() -> None:
    """Totals are those of the account, worked by hand: 16 samples, 8K context, 64 own tokens."""
    answer = bifurcate("trace", "bifurcated_flash", "--json").json
    q, lse = 16 * 32 * 128, 16 * 32 * 4
    context, own = 8 * 8192 * 128, 16 * 8 * 64 * 128
    assert answer["flops"] == 4 * q * (8192 + 64)
    # q read by two calls, the fold and the merge (with a float32 sum); log-sum-exps six times.
    assert answer["bytes_read"] == 2 * (3 * q + 2 * context + 2 * own) + (2 + 6) * q + 6 * lse
    assert answer["bytes_written"] == 2 * 3 * q + 2 * lse + 4 * lse + (4 + 2) * q
    assert answer["launches"] == 7
    assert answer["inputs"]["samples"] == 16
    for field in ("flops", "bytes_read", "bytes_written", "launches"):
        assert sum(row[field] for row in answer["operations"]) == answer[field]
    assert sum(row["time_ms"] for row in answer["operations"]) == pytest.approx(answer["device_ms"])


@pytest.mark.parametrize("where", ["attention_of_mine", "attention_of_mine.py"])
def test_a_function_of_one_s_own(where: str, code: Path) -> None:
    """By module or by file; what it prints goes to stderr, so that the answer stays JSON."""
    done = bifurcate("trace", f"{where}:attend", "-s", "samples=3", "--shape", "heads=8", "--json")
    (row,) = done.json["operations"]
    assert (row["operator"], row["bytes_read"], row["launches"]) == ("relu", 3 * 8 * 128 * 2, 1)
    assert "talks while it is traced" in done.err
    assert code.is_dir()


def test_tensors_of_one_s_own(code: Path) -> None:
    """--input gives sizes by number or by name, each with its type."""
    arguments = ("-i", "samples,inner", "--input", "inner,1K:fp32", "-s", "inner=64")
    answer = bifurcate("trace", "attention_of_mine:double", *arguments, "--json").json
    assert answer["inputs"]["tensors"] == [
        {"sizes": [16, 64], "dtype": "bf16"},
        {"sizes": [64, 1024], "dtype": "fp32"},
    ]
    assert answer["flops"] == 2 * 16 * 64 * 1024
    cast, product = answer["operations"]
    assert (cast["bytes_read"], cast["bytes_written"]) == (64 * 1024 * 4, 64 * 1024 * 2)
    assert product["bytes_read"] == (16 * 64 + 64 * 1024) * 2
    assert code.is_dir()


def test_a_module_with_weights(code: Path) -> None:
    """Its parameters move to the meta device, and count as read."""
    answer = bifurcate("trace", "attention_of_mine:layer", "-i", "4,64", "--json").json
    assert answer["bytes_read"] == (128 + 4 * 64 + 64 * 128) * 2
    assert code.is_dir()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("bifurcated_flsh",), 1, "did you mean 'bifurcated_flash'"),
        (("flashinfer_cascade",), 1, "measure --kernel flashinfer_cascade' times it"),
        (("no_such_module_at_all:attend",), 1, "No module named 'no_such_module_at_all'"),
        (("nowhere.py:attend",), 1, "there is no file nowhere.py"),
        (("broken:attend",), 1, "No module named 'no_such_module' (broken.py, line 1)"),
        (("attention_of_mine:atend",), 1, "did you mean 'attend'"),
        (("attention_of_mine:number",), 1, "is not a function: int"),
        (("attention_of_mine:fails",), 1, "(attention_of_mine.py, line 12)"),
        (("attention_of_mine:misses",), 1, "KeyError: 'answer' (attention_of_mine.py, line 16)"),
        (("attention_of_mine:asks",), 1, "a trace has shapes but no values"),
        (("attention_of_mine:double",), 1, "takes 2 positional arguments but 5 were given"),
        (("attention_of_mine:leaves",), 1, "SystemExit: 3 (attention_of_mine.py, line 24)"),
        (("attention_of_mine:Layer",), 1, "Layer is a class"),
        ((":attend",), 1, "':attend' is not MODULE:FUNCTION"),
        (("bifurcated_flash", "-s", "samples=9999999999"), 2, "samples is more than 1e+09"),
        (
            ("standard_flash", "-s", "samples=1000m", "-s", "context_tokens=1000m"),
            1,
            "tensors of these sizes cannot be made: ",
        ),
        (("bifurcated_flash", "-s", "samples"), 2, "is not NAME=SIZE"),
        (("bifurcated_flash", "-s", "samples=0"), 2, "samples must be at least 1"),
        (("bifurcated_flash", "-s", "samples=x"), 2, "'x' is not a count"),
        (("bifurcated_flash", "-s", "heads=7"), 1, "heads = 7 is not a multiple of kv_heads = 8"),
        (("bifurcated_flash", "-s", "sampels=3"), 2, "did you mean 'samples'"),
        (("bifurcated_flash", "-g", "h1000"), 1, "unknown GPU 'h1000'"),
        (("bifurcated_flash", "--dtype", "bf8"), 2, "did you mean 'bf16'"),
        (("attention_of_mine:double", "-i", "4,inner"), 2, "unknown size 'inner'"),
        (("attention_of_mine:double", "-i", "4,8:f"), 2, "unknown type 'f'"),
        (("bifurcated_flash", "-s", "context_tokens=0", "-s", "decoded_tokens=0"), 1, "nothing to"),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], exit_code: int, said: str, code: Path
) -> None:
    """What is wrong, in one line on stderr, and nothing on stdout."""
    done = bifurcate("trace", *arguments)
    assert done.code == exit_code
    assert done.out == ""
    assert said in done.told
    assert code.is_dir()


def test_without_torch_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch is an extra; its name is in the line."""
    monkeypatch.setattr("simulator.cli.trace.find_spec", lambda _: None)
    done = bifurcate("trace", "bifurcated_flash")
    assert done.code == 1
    assert "tracing needs PyTorch; pip install 'bifurcated-attention-simulator[torch]'" in done.told


def test_forms_of_the_answer(tmp_path: Path) -> None:
    """CSV and JSON have the same rows; a file's suffix picks its form; the table has the totals."""
    rows = bifurcate("trace", "standard_math", "--json").json["operations"]
    text = bifurcate("trace", "standard_math", "--format", "csv").text
    written = [
        [f"{value:.9g}" if isinstance(value, float) else str(value) for value in row.values()]
        for row in rows
    ]
    assert [list(row.values()) for row in csv.DictReader(io.StringIO(text))] == written
    path = tmp_path / "trace.csv"
    assert bifurcate("trace", "standard_math", "-o", str(path)).code == 0
    assert path.read_text(encoding="utf-8") == text
    table = bifurcate("trace", "standard_math").text
    assert "16 launches" in table
    assert "isneginf (_safe_softmax)" in table


def test_a_graph_takes_no_host() -> None:
    """Launched in a CUDA graph a kernel costs the host nothing, and less on the device."""
    eager, graph = (
        bifurcate("trace", "bifurcated_flash", "--execution", how, "--json").json
        for how in ("eager", "graph")
    )
    assert graph["host_ms"] == 0 < eager["host_ms"]
    assert graph["time_ms"] < eager["time_ms"]


def test_the_time_has_an_interval_and_says_whose_constants_it_rests_on() -> None:
    """As every prediction does; constants carried from other cards make it wider."""
    widths = {}
    for gpu, origin in (("h100-sxm", "fitted"), ("rtx-4090", "carried")):
        answer = bifurcate(
            "trace", "standard_flash", "--execution", "graph", "-g", gpu, "--json"
        ).json
        assert answer["time_ms_low"] < answer["time_ms"] < answer["time_ms_high"]
        assert answer["hardware"]["constants"] == origin
        assert origin in answer["notes"][0]
        widths[gpu] = answer["time_ms_high"] / answer["time_ms_low"]
    assert widths["rtx-4090"] > widths["h100-sxm"]


def test_every_json_field_is_documented() -> None:
    """Every key of the JSON stands in the command's section, or in that of estimate."""
    words = section("trace") + section("estimate")
    answer = bifurcate("trace", "standard_flash", "--json").json
    keys = {*answer, *answer["operations"][0], *answer["inputs"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in words] == []


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of docs/tracing.md in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def counted(text: str) -> list[tuple[str, ...]]:
    """Return operator, FLOP, bytes read and bytes written of a table's lines, and its totals."""
    row = r"^(\w+) +\d+ +[\d.]+ .?s +[\d.]+% +([\d.]+(?: .)?) +([\d.]+ .?B) +([\d.]+ .?B) "
    totals = re.search(r"^.* read, .* written, .*$", text, re.MULTILINE)
    assert totals
    return [(totals.group(),), *re.findall(row, text, re.MULTILINE)]


def test_the_page_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of docs/tracing.md, traced as it stands, has the figures that stand below it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(blocks("py")[0], encoding="utf-8")
    command, _, shown = blocks("text")[0].partition("\n")
    printed = bifurcate(*shlex.split(command.removeprefix("$ bifurcate "))).text
    assert len(counted(shown)) == 12
    assert counted(shown) == counted(printed)


def test_the_page_s_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """So does its other example."""
    exec(compile(blocks("py")[1], "docs/tracing.md", "exec"), {})  # noqa: S102 - our own document
    flops, *_ = capsys.readouterr().out.split()
    assert int(flops) == 2 * 16 * 4096 * 14336


def test_the_page_s_figures_are_those_of_the_traces() -> None:
    """The table of what differed has today's traces in its columns."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    figures = {
        name: [int(cell.replace(",", "")) for cell in cells.split(" | ")]
        for name, cells in rows
        if cells[0].isdigit()
    }
    assert len(figures) == 6
    for name, (_, read, _, written, _, launches) in figures.items():
        answer = bifurcate("trace", name, "--json").json
        found = (answer["bytes_read"], answer["bytes_written"], answer["launches"])
        assert found == (read, written, launches)
