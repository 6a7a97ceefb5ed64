"""Where answers go: formats, files, pipes and terminals."""

import csv
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import bifurcate

import simulator

QUESTION = ("-m", "llama-3.1-8b", "-n", "16", "--context", "8K")
COMMANDS = [
    ("estimate", *QUESTION),
    ("compare", *QUESTION),
    ("generate", *QUESTION, "--output-len", "16"),
    ("plan", *QUESTION, "-g", "h100", "-g", "l4"),
    ("models",),
    ("models", "list"),
    ("models", "show", "gpt2"),
    ("gpus",),
    ("gpus", "list"),
    ("gpus", "show", "l4"),
    ("scenarios",),
    ("scenarios", "list"),
    ("scenarios", "show", "one-sample"),
]


def rows_of(text: str) -> list[dict[str, str]]:
    """Read CSV."""
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_every_format_to_stdout_and_file(
    command: tuple[str, ...], form: str, tmp_path: Path
) -> None:
    """Every answer has all three formats, and a file holds exactly what stdout would."""
    shown = bifurcate(*command, "--format", form)
    assert shown.text.endswith("\n")
    assert shown.err == ""
    target = tmp_path / f"answer{ {'table': '.txt', 'json': '.json', 'csv': '.CSV'}[form] }"
    written = bifurcate(*command, "-o", str(target))
    assert written.text == ""
    assert target.read_text(encoding="utf-8") == shown.out
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_the_suffix_yields_to_the_format(tmp_path: Path) -> None:
    """--format decides, whatever the file is called."""
    target = tmp_path / "answer.csv"
    assert bifurcate("estimate", *QUESTION, "--json", "-o", str(target)).code == 0
    assert json.loads(target.read_text(encoding="utf-8"))["schema_version"] == 3


def test_compare_csv_has_the_numbers_of_the_answer() -> None:
    """The CSV of compare reads back as the numbers of the comparison, counts exactly."""
    result = simulator.compare("llama-3.1-8b", samples=16, context_tokens="8K")
    rows = rows_of(bifurcate("compare", *QUESTION, "--format", "csv").text)
    assert [row["variant"] for row in rows] == ["standard", "copies", "bifurcated"]
    for row in rows:
        item = getattr(result, row["variant"])
        assert row["step_ms"] == f"{item.step_s / 1e-3:.9g}"
        assert int(row["kv_bytes_read"]) == item.totals.kv_bytes_read
        assert row["fits"] == str(item.memory.fits).lower()
        assert (row["model"], row["gpu"], row["samples"]) == ("llama-3.1-8b", "h100-sxm", "16")


def in_csv(value: object) -> str:
    """Write a value of JSON as CSV has it: nine digits, counts whole, true and false."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.9g}"
    return "" if value is None else str(value)


@pytest.mark.parametrize("command", COMMANDS[:4], ids=lambda part: part[0])
def test_csv_and_json_agree(command: tuple[str, ...]) -> None:
    """Every figure of a CSV row is the figure of the JSON object of the same name."""
    rows = rows_of(bifurcate(*command, "--format", "csv").text)
    answer = bifurcate(*command, "--json").json
    objects = {
        "estimate": lambda: answer["operations"],
        "compare": lambda: [answer[row["variant"]] for row in rows],
        "generate": lambda: [answer[row["attention"]] for row in rows],
        "plan": lambda: answer["options"],
    }[command[0]]()
    assert len(rows) == len(objects)
    compared = 0
    for row, item in zip(rows, objects, strict=True):
        for key in row.keys() & item.keys():
            assert row[key] == in_csv(item[key])
            compared += 1
    assert compared >= 8 * len(rows)


def test_tables_are_plain_where_there_is_no_terminal() -> None:
    """Away from a terminal there are no colours and no blanks at the ends of lines."""
    for command in COMMANDS:
        text = bifurcate(*command).text
        assert "\x1b" not in text
        assert all(line == line.rstrip() for line in text.splitlines())
        assert max(map(len, text.splitlines())) <= 140


def test_tables_away_from_a_terminal_are_as_wide_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """``BIFURCATE_WIDTH`` sets the width; what is no number does not."""
    for told, width in (("80", 80), ("wide", 140), ("0", 140)):
        monkeypatch.setenv("BIFURCATE_WIDTH", told)
        lines = bifurcate("compare", *QUESTION).text.splitlines()
        assert width - 20 < max(map(len, lines)) <= width


def test_a_table_too_wide_for_a_file_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell of the wide table is in the narrow one, which may be wider than it was asked."""
    cells = bifurcate("measure", "--dry-run", "--only", "gemm").text.split()
    monkeypatch.setenv("BIFURCATE_WIDTH", "30")
    assert set(cells) <= set(bifurcate("measure", "--dry-run", "--only", "gemm").text.split())


@pytest.mark.parametrize(
    "question",
    [
        ("estimate", "-m", "deepseek-v3", "-g", "b200", "--tp", "8"),
        ("tradeoff", "-m", "codellama-7b", "--context", "8K"),
        ("plan", "-m", "llama-3.1-8b", "-g", "l40s", "--requests-per-s", "4", "--tpot-ms", "25"),
        ("models",),
    ],
)
def test_tables_fit_the_width_of_a_common_terminal(
    question: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit 80 characters is left out and named, not wrapped into blank lines."""
    monkeypatch.setenv("BIFURCATE_WIDTH", "80")
    lines = bifurcate(*question).text.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("Left out on this narrow terminal: ") for line in lines)


def test_a_plan_says_whose_constants_it_rests_on_and_how_sure_it_is() -> None:
    """One note for fitted and carried GPUs alike, and the chosen step's interval in the answer."""
    shown = bifurcate("plan", *QUESTION, "-g", "h100", "-g", "l4", "--gpus", "1").text
    note = (
        "Constants fitted to rows measured on H100 SXM5 80GB; carried over from other GPUs for L4."
    )
    assert f"- {note}" in shown
    assert re.search(r"ms per step \([\d.]+ to [\d.]+ ms\)", shown)
    shown = bifurcate("plan", *QUESTION, "-g", "l4", "--constants", "peak").text
    assert "- Constants of published peaks, a bound, for L4." in shown


def test_a_plan_for_a_load_reads_as_its_table_does() -> None:
    """Sentence and table of one percentile; what is not shown is counted; JSON has all."""
    asked = ("-m", "llama-3.1-8b", "--requests-per-s", "4", "-n", "8", "--input-len", "6K")
    cards = ("-g", "l40s", "-g", "h100-sxm", "--tpot-ms", "25", "--percentile", "90")
    shown = bifurcate("plan", *asked, *cards).text
    answer = bifurcate("plan", *asked, *cards, "--json").json
    time = f"{answer['cheapest']['tpot_ms_p90']:.3g} ms"
    assert f"TPOT p90 {time} (" in shown
    row = next(line for line in shown.splitlines() if line.endswith("meets, cheapest"))
    assert time in row
    rows = [line for line in shown.splitlines() if line.startswith(("l40s ", "h100-sxm "))]
    hidden = shown.partition("Not shown: ")[2].partition(". --format")[0].split("; ")
    counted = sum(int(each.split()[0]) for each in hidden)
    assert len(rows) + counted == len(answer["options"])
    assert any(each.endswith("too dear beside the cheapest") for each in hidden)


def test_a_card_that_is_only_too_dear_is_named() -> None:
    """Of ever more L4s none is worth a row beside the cheapest H100s; nothing is shared."""
    asked = ("-m", "llama-3.1-8b", "--requests-per-s", "20", "--input-len", "4K")
    shown = bifurcate("plan", *asked, "-g", "l4", "-g", "h100-sxm").text
    assert "too dear beside the cheapest (all of l4);" in shown
    assert not any(line.startswith("l4 ") for line in shown.splitlines())
    assert "  attention " not in shown


def test_a_load_that_nothing_carries_says_how_much_is() -> None:
    """No times without end: the most requests a second of the nearest option, and why."""
    few = ("-g", "h100-sxm", "--gpus-at-most", "2", "--requests-per-s", "1000")
    shown = bifurcate("plan", "-m", "llama-3.1-8b", "--input-len", "2K", *few).text
    most = re.search(r"The most is ([\d.]+) requests/s, of 2 x h100-sxm", shown)
    assert most
    assert " inf " not in shown
    options = bifurcate("plan", "-m", "llama-3.1-8b", "--input-len", "2K", *few, "--json").json
    best = max(option["requests_per_s"] for option in options["options"])
    assert float(most[1]) == pytest.approx(best, rel=5e-3)


def test_an_interval_that_is_not_known_says_why_under_load_too() -> None:
    """As for a step: of groups that no rows are of."""
    asked = ("-m", "deepseek-v3", "-g", "h200-sxm", "--input-len", "2K")
    groups = ("--dp", "8", "--ep", "8")
    why = "Interval not known: no rows are of data-parallel groups or pipelines"
    assert why in bifurcate("estimate", *asked, *groups).text
    assert why in bifurcate("serve", *asked, *groups, "--users", "8").text
    assert why in bifurcate("plan", *asked, *groups, "--requests-per-s", "1").text


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that fails leaves the file of an earlier one as it was."""
    target = tmp_path / "answer.json"
    target.write_text("earlier", encoding="utf-8")
    assert bifurcate("estimate", *QUESTION, "--prompts", "0", "-o", str(target)).code == 1
    assert target.read_text(encoding="utf-8") == "earlier"

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    done = bifurcate("estimate", *QUESTION, "-o", str(target))
    monkeypatch.undo()
    assert done.code == 1
    assert "No space left on device" in done.err
    assert target.read_text(encoding="utf-8") == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["answer.json"]


def run(*arguments: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-m", "simulator", *arguments],
        text=True,
        stderr=subprocess.PIPE,
        check=False,
        **keywords,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_in_one_line() -> None:
    """Where stdout cannot be written the reason is named."""
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = run("gpus", "--json", stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: cannot write the answer: No space left on device"
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error() -> None:
    """``bifurcate ... | head -1`` shows a line and complains of nothing."""
    command = f"{shlex.quote(sys.executable)} -m simulator sweep repeated-sampling | head -1"
    shell = ["/bin/sh", "-c", command]
    done = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("model,kv_heads,gpu")
    assert done.stderr == ""


def on_terminal(*arguments: str, columns: int, **environment: str) -> str:
    """Return what a command shows on a terminal of a given width."""
    master, slave = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    env |= {"TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments],
        stdout=slave,
        stderr=slave,
        stdin=slave,
        env=env,
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the terminal closes with its program
        pass
    os.close(master)
    assert process.wait() == 0
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colour_unless_it_should_not() -> None:
    """A terminal shows colour; NO_COLOR turns it off."""
    cyan = "\x1b[1;36m"
    assert cyan in on_terminal("estimate", "-m", "gpt2", columns=140)
    assert cyan not in on_terminal("estimate", "-m", "gpt2", columns=140, NO_COLOR="1")


def test_a_narrow_terminal_loses_no_figure() -> None:
    """At 80 columns figures are those at 140, none cut short; a column left out is named."""
    question = ("compare", "-m", "llama-2-7b", "-n", "64")
    narrow = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(*question, columns=80))
    assert max(map(len, narrow.splitlines())) == 80
    assert "…" not in narrow
    wide, intervals = re.subn(r"[\d.]+ to [\d.]+ ms", "", bifurcate(*question).text)
    assert intervals == 3
    assert "Left out on this narrow terminal: bound by." in narrow
    figures = re.findall(r"[\d.,]*\d(?: [kMGT]?i?B| [mµ]s|x)?", wide)
    assert len(figures) > 30
    for figure in figures:
        assert figure.split()[0] in narrow


def test_a_dash_is_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``-o -`` prints the answer, as it does elsewhere, and leaves no file of that name."""
    monkeypatch.chdir(tmp_path)
    asked = bifurcate("compare", *QUESTION, "--json", "-o", "-")
    assert asked.text == bifurcate("compare", *QUESTION, "--json").text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["gbk", "shift_jis", "euc_kr", "big5", "ascii", "latin-1"])
def test_an_encoding_without_our_characters_gets_others(encoding: str) -> None:
    """A terminal of another script shows the answer, with the nearest characters there are."""
    done = subprocess.run(
        [sys.executable, "-m", "simulator", "estimate", "-m", "gpt2", "-n", "1"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    said = done.stdout.decode(encoding)
    assert re.search(r"launch .*" if encoding == "latin-1" else r"\d us ", said)
    assert "?" not in said


def test_a_name_in_a_file_does_not_command_the_terminal(tmp_path: Path) -> None:
    """Tables, CSV and error lines leave out escapes; spreadsheets get a text, no formula."""
    path = tmp_path / "l4.toml"
    text = (Path(simulator.__file__).parents[1] / "hardware_profiles" / "l4.toml").read_text()
    path.write_text(text.replace('"aiconfigurator;', '"=1+1 \\u001b[31mred;', 1), encoding="utf-8")
    shown = bifurcate("gpus", "show", str(path)).text
    assert "=1+1 [31mred" in shown
    table = bifurcate("gpus", "show", str(path), "--format", "csv").text
    assert "'=1+1 [31mred" in table
    assert "\x1b" not in shown + table + bifurcate("gpus", "show", "\x1b[31m").err


def test_csv_has_no_formulas_from_any_door(tmp_path: Path) -> None:
    """Neither in cells of a sweep, nor in columns and cells of rows that come back."""
    shipped = Path(simulator.__file__).parents[1] / "scenarios" / "one-sample.toml"
    model, scenario = tmp_path / "=1+1" / "config.json", tmp_path / "mine.toml"
    model.parent.mkdir()
    sizes = {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 100}
    model.write_text(json.dumps({"model_type": "gpt2", **sizes}))
    text = re.sub(r"(?m)^models = .*$", f"models = ['{model.parent}']", shipped.read_text())
    scenario.write_text(text.replace('id = "one-sample"', 'id = "mine"'))
    assert bifurcate("sweep", str(scenario)).text.splitlines()[1].startswith("'=1+1,")
    rows, told = tmp_path / "rows.csv", tmp_path / "told.csv"
    rows.write_text("gpu,m,n,k,dtype,latency_us,=2+2\nh100,128,4096,4096,bf16,20,=3+3\n")
    assert bifurcate("validate", str(rows), "-o", str(told)).code == 0
    with told.open() as stream:
        cells = [cell for line in csv.reader(stream) for cell in line]
    assert {"'=2+2", "'=3+3"} <= set(cells)
    assert not [cell for cell in cells if cell.startswith("=")]


@pytest.mark.parametrize("link", [False, True])
def test_an_input_is_not_written_over(tmp_path: Path, link: bool) -> None:
    """Neither by its own name, nor by another, nor as part of a folder."""
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "gpt2"}')
    target = tmp_path / "out.json" if link else config
    if link:
        target.symlink_to(config)
    for model in (config, tmp_path):
        done = bifurcate("estimate", "-m", str(model), "-o", str(target))
        assert (done.code, "it is an input" in done.err) == (1, True)
    assert config.read_text() == '{"model_type": "gpt2"}'


def test_ctrl_c_before_the_commands_are_loaded_is_quiet() -> None:
    """Whoever stops the program while it loads sees no traceback."""
    code = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "import simulator.cli\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
