"""The documents are true: every command is described, runs, and prints what they show."""

import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
from command_line import bifurcate
from reference import REFERENCE, section

import simulator
from simulator.cli.command import EXAMPLES, GROUPS, HELP, SPELLINGS, SPELT
from simulator.cli.main import build
from simulator.inputs.hardware import profile_files
from simulator.inputs.hf_config.model_types import MODEL_TYPES, NESTED
from simulator.inputs.presets import presets
from simulator.inputs.scenario import load_scenario, scenario_files
from tools import accuracy_summary, refresh

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
# What a shell block may say beside our own commands: they set up the machine or run for minutes.
NOT_RUN = ("make ", "pip ", "git ", "python ", "source ", "#")


DOCUMENTS = {
    path.relative_to(CHECKOUT).as_posix(): path.read_text(encoding="utf-8")
    for path in refresh.documents()
    if path.exists()
}


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the fenced blocks of a language in all documents, each with the document's name."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(name, block) for name, text in DOCUMENTS.items() for block in fence.findall(text)]


def tree(command: Any = None, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command of the command line with its full name, groups included."""
    command = typer.main.get_command(build()) if command is None else command
    for child, item in getattr(command, "commands", {}).items():
        full = f"{name} {child}".strip()
        yield full, item
        yield from tree(item, full)


TREE = dict(tree())


def options(command: Any) -> set[str]:
    """Return every spelling of a command's options, but for --help."""
    names = {name for item in command.params for name in item.opts if name.startswith("-")}
    return names - {"-h", "--help"}


SHARED = REFERENCE.partition("## Options that questions share")[2].partition("## estimate")[0]


@pytest.mark.parametrize("command", sorted(TREE))
def test_every_command_is_documented(command: str) -> None:
    """Every command has help text, a section, and every one of its options in it."""
    item = TREE[command]
    assert item.help, f"{command} has no help text"
    assert command.split(maxsplit=1)[0] in re.findall(r"\[`(\w+)`\]\(#\w+\)", REFERENCE)
    words = section(command)
    if " " in command:
        assert re.search(rf"`({command}|{command.split()[1]})\b", words)
    shared = SHARED if options(item) >= {"--context-tokens", "--kernel"} else ""
    missing = [name for name in options(item) if f"`{name}`" not in words + shared]
    assert missing == [], f"no reference page says what these of {command} do"


@pytest.mark.parametrize("command", sorted(TREE))
def test_every_option_has_help(command: str) -> None:
    """Every option and argument says what it does, and its summary is not cut short."""
    for item in TREE[command].params:
        assert item.help, f"{command} {item.name}"
    summary = TREE[command].get_short_help_str(62)
    assert not summary.endswith("..."), summary


def test_no_option_is_documented_that_is_not_there() -> None:
    """Every option that the documents name is an option of some command."""
    known = {name for item in TREE.values() for name in options(item)}
    known |= {"--help", "--version", "--install-completion", "--show-completion", *SPELLINGS}
    for name, text in DOCUMENTS.items():
        if name in ("README.md", "docs/commands.md"):
            named = set(re.findall(r"`(--[a-z0-9-]+)", text)) - {"--check`d"}
            assert named - known == set(), name


def test_no_word_is_kept_for_an_option_that_is_not_there() -> None:
    """Spellings, texts and words of engines are all of some option, and examples of a command."""
    names = {item.name for command in TREE.values() for item in command.params}
    flags = {flag for command in TREE.values() for flag in options(command)}
    assert {key.partition(" of ")[0] for key in (*SPELT, *HELP)} - names == set()
    assert {ours[0] for ours in SPELLINGS.values()} - flags == set()
    assert set(EXAMPLES) == {name for name in TREE if " " not in name}


@pytest.mark.parametrize("command", [name for name in TREE if " " not in name])
def test_help_is_shown(command: str) -> None:
    """--help and -h answer on stdout with code 0."""
    for flag in ("-h", "--help"):
        done = bifurcate(command, flag)
        assert done.text.startswith(f"Usage: bifurcate {command}")


def test_the_help_lists_every_command_once_in_groups() -> None:
    """Those of one idea stand together, and none is left out."""
    text = bifurcate("--help").text
    for title, names in GROUPS.items():
        part = text.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in part.splitlines()] == list(names)
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(
        name for name in TREE if " " not in name
    )


@pytest.mark.parametrize("command", ["estimate", "compare", "plan", "sweep", "report", "explore"])
def test_the_help_of_a_question_begins_with_the_options_most_used(command: str) -> None:
    """Model, GPU, samples, context and batch come first, then the others in groups."""
    text = bifurcate(command, "--help").text
    first = text.partition("The question:\n")[2].partition("\n\n")[0]
    options = [line.split()[0].strip(",") for line in first.splitlines() if line.startswith("  -")]
    assert options == ["-m", "-g", "-n", "--context-tokens", "--prompts"]
    groups = ("The question:", "The model:", "The workload:", "The hardware", "The output:")
    places = [text.index(f"\n{group}") for group in groups]
    assert places[0] == min(places)
    assert max(map(len, text.splitlines())) <= 80


# Words of examples that name files of the reader's own, and commands that take long.
OWN_FILES = re.compile(r"runs\.csv|measured|rows\.csv|my_code|my-card|mine|\./config\.json")
SLOW = ("report", "explore", "measure", "trace")


@pytest.mark.parametrize("command", [name for name in TREE if " " not in name])
def test_the_help_has_two_examples_that_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command shows two, whose options it knows; those that need nothing are answered."""
    monkeypatch.chdir(tmp_path)
    shown = bifurcate(command, "--help").text.partition("Examples:\n")[2].splitlines()
    assert len(shown) == 2
    known = {name for item in TREE if item.startswith(command) for name in options(TREE[item])}
    for line in shown:
        program, *words = shlex.split(line)
        assert (program, words[0]) == ("bifurcate", command)
        assert {word for word in words if word.startswith("--")} <= known
        drawable = not line.endswith(".svg") or importlib.util.find_spec("kaleido") is not None
        if drawable and not OWN_FILES.search(line) and command not in SLOW:
            assert bifurcate(*words).code == 0, line


QUESTION = ("-m", "llama-3.1-8b", "-g", "h100-sxm")


def keys_of(value: Any) -> set[str]:
    """Return every key of a JSON value, at any depth."""
    if isinstance(value, dict):
        return {*value, *(key for item in value.values() for key in keys_of(item))}
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item)}
    return set()


@pytest.mark.parametrize(
    "question",
    [
        "estimate -m llama-3.1-8b --explain",
        "compare -m llama-3.1-8b --explain --rule vllm",
        "generate -m llama-3.1-8b",
        "plan -m llama-3.1-8b -g h100-sxm",
        "tree -m llama-3.1-8b",
        "tradeoff -m llama-2-7b",
        "scaling {runs}",
        "quality -m llama-3.1-8b --success-rate 0.05 --target-step-ms 15",
        "measure --dry-run",
        "trace bifurcated_flash",
    ],
)
def test_every_json_field_is_documented(question: str, tmp_path: Path) -> None:
    """Every key of an answer's JSON stands in the section, or in that of estimate it refers to."""
    command = question.split(maxsplit=1)[0]
    if command == "trace":
        pytest.importorskip("torch", reason="tracing needs PyTorch")
    runs = tmp_path / "runs.csv"
    sizes = [(size, group) for size in (1e8, 1e9, 1e10) for group in (1, 32)]
    losses = [(f"{n:.0f}", g, 1.7 + 400 * (n / 1.1 ** (g > 1)) ** -0.34) for n, g in sizes]
    lines = ["parameters,group_size,loss", *(",".join(map(str, run)) for run in losses)]
    runs.write_text("\n".join(lines), encoding="utf-8")
    answer = bifurcate(*(word.format(runs=runs) for word in question.split()), "--json").json
    answer.pop("fewest_gpus", None)  # its keys are names of GPUs
    words = section(command) + section("estimate")
    assert [key for key in sorted(keys_of(answer)) if f"`{key}`" not in words] == []


def test_every_sweep_column_is_documented() -> None:
    """Every column of a sweep stands in its section, those of each kind behind a prefix."""
    columns = bifurcate("sweep", "one-sample").text.splitlines()[0].split(",")
    words = section("sweep")
    plain = {re.sub("^(standard|bifurcated)_", "", column) for column in columns}
    assert "`standard_`" in words
    assert "`bifurcated_`" in words
    assert [column for column in sorted(plain) if f"`{column}`" not in words] == []


def test_tables_of_fields_are_those_of_the_answers() -> None:
    """Each has the fields, the order and the units of its columns, and words on all of them."""
    assert len(refresh.FIELDS.findall(REFERENCE)) >= 15
    assert refresh.described(REFERENCE) == REFERENCE, "run python tools/refresh.py"
    for _, _, table in refresh.FIELDS.findall(REFERENCE):
        assert not re.search(r"\| *\|$", table, re.MULTILINE), table


@pytest.mark.parametrize("group", ["models", "gpus", "scenarios"])
def test_every_list_column_is_documented(group: str) -> None:
    """Every column of a list stands in its section."""
    columns = bifurcate(group, "--json").json[0]
    assert [column for column in columns if f"`{column}`" not in section(group)] == []


# What commands say of sample rows, beside their answer.
MADE_UP = "note: rows whose source is synthetic are made up, not measured\n"


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_shown_outputs_are_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a document shows below a command is what the command prints today."""
    text = DOCUMENTS[name]
    monkeypatch.setenv("BIFURCATE_WIDTH", str(refresh.width_of(CHECKOUT / name)))
    for match in refresh.BLOCK.finditer(text):
        lines = match.group(2).splitlines(keepends=True)
        starts = [index for index, line in enumerate(lines) if line.startswith("$ ")]
        for start, end in pairwise([*starts, len(lines)]):
            words = shlex.split(lines[start].removeprefix("$ "))
            assert words[0] == "bifurcate"
            shown = "".join(lines[start + 1 : end])
            done = bifurcate(*words[1:])
            assert done.err in ("", MADE_UP)
            printed = done.err + done.out
            assert shown.rstrip("\n") == printed.rstrip("\n"), "run python tools/refresh.py"


def shell_lines() -> list[str]:
    """Return every line of the shell blocks, once, without the remark behind it."""
    lines = (
        line.partition(" #")[0].strip() for _, block in blocks("sh") for line in block.splitlines()
    )
    return sorted({line for line in lines if line})


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("bifurcate")])
def test_shell_commands_of_ours_run(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ``bifurcate`` line of a shell block answers, away from the checkout."""
    monkeypatch.chdir(tmp_path)
    done = bifurcate(*shlex.split(line, comments=True)[1:])
    assert done.code == 0, done.err


def test_other_shell_lines_are_known() -> None:
    """Lines that are not run here are of a kind that is left out on purpose."""
    others = [line for line in shell_lines() if not line.startswith("bifurcate")]
    assert [line for line in others if not line.startswith(NOT_RUN)] == []


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", sorted({name for name, _ in blocks("python")}))
def test_python_examples_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every Python block of a document runs as it stands, and prints something."""
    for document, block in blocks("python"):
        if document == name:
            if "import torch" in block:
                pytest.importorskip("torch", reason="the example needs PyTorch")
            exec(compile(block, name, "exec"), {})  # noqa: S102 - our own documents
    assert capsys.readouterr().out.strip()


def examples(language: str = "toml") -> dict[str, str]:
    """Return the example files of docs/commands.md by the name in their first line."""
    found = {}
    for document, block in blocks(language):
        named = re.match(r"# (\S+\.toml)\n", block)
        if document == "docs/commands.md" and named:
            found[named.group(1)] = block
    return found


def test_the_example_profile_loads_and_answers(tmp_path: Path) -> None:
    """The minimal GPU profile of the docs is whole, checks clean, and answers."""
    path = tmp_path / "my-gpu.toml"
    path.write_text(examples()[path.name], encoding="utf-8")
    assert bifurcate("gpus", "check", str(path)).err == "1 profile checked: nothing found\n"
    answer = bifurcate("estimate", "-m", "gpt2", "-g", str(path), "--json").json
    assert answer["hardware"]["name"] == "my-gpu"


def test_the_example_profile_is_minimal(tmp_path: Path) -> None:
    """Nothing can be left out of the minimal profile but what another figure can stand for."""
    text = examples()["my-gpu.toml"]
    path = tmp_path / "my-gpu.toml"
    needless = []
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            path.write_text(text.replace(line, ""), encoding="utf-8")
            if bifurcate("gpus", "show", str(path)).code == 0:
                needless.append(line.split()[0])
    assert needless == ["bf16_tflops"]  # without it the fp16 rate is used, with a note


def test_the_example_scenario_loads_and_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example scenario of the docs checks clean, and sweeps by path and by name."""
    path = tmp_path / "my-load.toml"
    path.write_text(examples()[path.name], encoding="utf-8")
    assert bifurcate("scenarios", "check", str(path)).err == "1 scenario checked: nothing found\n"
    table = bifurcate("sweep", str(path)).text
    assert len(table.splitlines()) == 1 + load_scenario(path).points == 1 + 2 * 3 * 2
    monkeypatch.setenv("BIFURCATE_SCENARIO_PATH", str(tmp_path))
    assert bifurcate("sweep", "my-load").text == table


def test_toml_blocks_are_toml() -> None:
    """Every TOML block of a document parses."""
    for _, block in blocks("toml"):
        tomllib.loads(block)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_links_lead_somewhere(name: str) -> None:
    """Every link to a file or heading of the checkout finds it."""
    for link in re.findall(r"\]\(([^)\s]+)\)", DOCUMENTS[name]):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (CHECKOUT / name).parent / path if path else CHECKOUT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_readme_counts_right() -> None:
    """What README says there is of GPUs, models, types and workloads is what there is."""
    text = " ".join(README.split())
    found = re.search(
        r"knows (\d+) GPUs, (\d+) models by name .*?, (\d+) types of Hugging Face `config.json`, "
        r"and (\d+) workloads .*?, (\w+) of them with \"no gain\"",
        text,
    )
    assert found
    scenarios = [load_scenario(name) for name in scenario_files()]
    fruitless = sum(scenario.verdict == "no gain" for scenario in scenarios)
    words = "none one two three four five six seven eight nine ten".split()  # noqa: SIM905
    expected = (len(profile_files()), len(presets()), len({*MODEL_TYPES, *NESTED}), len(scenarios))
    assert tuple(map(int, found.groups()[:4])) == expected
    assert found.group(5) == words[fruitless]
    assert f"has {len(profile_files())} examples" in " ".join(REFERENCE.split())


def test_figures_of_accuracy_are_the_pages() -> None:
    """README's table is what docs/accuracy.md says, and the rest of the section has no figure."""
    assert accuracy_summary.BLOCK.search(README), "the marks of the table are gone"
    assert accuracy_summary.summarised(README) == README, "run python tools/refresh.py"
    section = README.partition("## Accuracy and limits")[2].partition("\n## ")[0]
    prose = accuracy_summary.BLOCK.sub("", section)
    assert re.findall(r"\d+ %", prose) == ["80 %"]


def test_the_summary_by_hand() -> None:
    """Ranges are over a kind's GPUs; what a table does not have is a dash."""
    page = (
        "from 1,234 rows\n## Kernels, on shapes the fit has not seen\n\n"
        "| GPU | rows of | constants for | median |\n| --- | --- | --- | ---: |\n"
        "| a | gemm | all | 4.2 % |\n| b | gemm | all | 7.8 % |\n| b | gemm | fp8 | |\n"
        "\n## A GPU left out\n\n| kernels | GPU left out | median |\n| --- | --- | ---: |\n"
        "| gemm | a | 9.0 % |\n\n## Do the intervals hold?\n\n"
        "| checked on | GPU | inside |\n| --- | --- | ---: |\n"
        "| shapes held out: gemm | a | 80 % |\n| shapes held out: gemm | b | 78 % |\n"
        "| sum of four products | a | 71 % |\n"
    )
    lines = accuracy_summary.summary(page).splitlines()
    assert "1,234 rows" in lines[0]
    assert "| products, 16 bits | 4 to 8 % | 9 % | 78 to 80 % | – |" in lines
    assert "| products, 8 and 4 bits | – | – | – | – |" in lines
    assert "| sum of four products | – | – | 71 % | – |" in lines


def test_exit_codes_are_documented() -> None:
    """The codes of the table of exit codes are those that commands end with."""
    codes = set(map(int, re.findall(r"^\| (\d+) \|", REFERENCE, re.MULTILINE)))
    assert codes == {0, 1, 2, 3, 130}
    huge = ("-m", "llama-3.1-405b", "-g", "l4")
    assert bifurcate("estimate", *huge, "--check").code == 3
    assert bifurcate("compare", *huge, "--check").code == 3
    assert bifurcate("generate", *huge, "--check").code == 3
    late = ("plan", *QUESTION, "--target-step-ms", "0.01")
    assert bifurcate(*late, "--check").code == 3
    for arguments in (("estimate", *huge), ("estimate", *QUESTION, "--check"), late):
        assert bifurcate(*arguments).code == 0
    assert bifurcate("plan", *QUESTION, "--target-step-ms", "1000", "--check").code == 0


def test_a_check_that_fails_still_answers() -> None:
    """--check changes the exit code, not the answer."""
    question = ("estimate", "-m", "llama-3.1-405b", "-g", "l4", "--json")
    done = bifurcate(*question, "--check")
    assert json.loads(done.out) == bifurcate(*question).json
    assert done.err == ""


def test_the_version() -> None:
    """--version prints the version and nothing else."""
    assert bifurcate("--version").text == f"{simulator.__version__}\n"
