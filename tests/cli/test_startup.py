"""Starting up costs little: no question about one point loads an array, frame or plot library."""

import subprocess
import sys
from pathlib import Path

import pytest

# Each of these alone costs more time or memory than a whole answer.
HEAVY = ("numpy", "pandas", "plotly", "pyarrow", "pydantic", "scipy", "torch")
# What answers to other questions need.
OTHERS = (
    "simulator.evidence",
    *(f"simulator.answers.{name}" for name in ("generate", "load", "plan", "sweep", "tradeoff")),
    *(f"simulator.views.{name}" for name in ("explore", "load", "plan", "plots", "report")),
    *(f"simulator.inputs.{name}" for name in ("csv_files", "scenario")),
)
QUESTION = ["--model", "llama-3.1-8b", "--gpu", "h100-sxm", "-n", "16", "--context", "8K"]


def loaded_after(statement: str, watched: tuple[str, ...] = HEAVY) -> set[str]:
    """Run a statement in a new interpreter; return which of the watched modules it loaded."""
    code = (
        "import sys\n"
        "try:\n"
        f"    {statement}\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        f"print('\\nloaded:', *[name for name in {watched!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].removeprefix("loaded:").split())


def loaded_by_command(*arguments: str, watched: tuple[str, ...] = HEAVY) -> set[str]:
    """Run ``bifurcate`` with arguments; return which of the watched modules it loaded."""
    return loaded_after(f"from simulator.cli import main; main({list(arguments)!r})", watched)


def test_a_heavy_import_would_be_seen() -> None:
    """The check itself works: it reports a heavy module that was loaded."""
    assert loaded_after("import numpy") == {"numpy"}


def test_importing_the_package_loads_nothing_of_others() -> None:
    """``import simulator`` loads no dependency at all, not even the light ones."""
    assert loaded_after("import simulator", (*HEAVY, "rich", "typer")) == set()


def test_a_checkout_without_its_dependencies_says_how_to_get_them() -> None:
    """``python cli.py`` of a Python that has none of them ends in one line, not in a traceback."""
    bare = [sys.executable, "-E", "-S", str(Path(__file__).parents[2] / "cli.py"), "gpus"]
    done = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: typer is not installed")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["--help"], ["help"], ["--version"]])
def test_help_loads_no_command(words: list[str]) -> None:
    """It needs the table of commands alone: no answer, no view."""
    light = ("simulator.answers", "simulator.inputs", "simulator.views", "rich")
    assert loaded_by_command(*words, watched=(*HEAVY, *OTHERS, *light)) == set()


@pytest.mark.parametrize("command", ["estimate", "compare", "tree"])
@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_one_point_loads_what_it_needs(command: str, form: str) -> None:
    """A question about one point loads nothing heavy, no other answer, no rich for a pipe."""
    watched = (*HEAVY, *OTHERS, "rich")
    assert loaded_by_command(command, *QUESTION, "--format", form, watched=watched) == set()


@pytest.mark.parametrize("command", ["models", "gpus", "scenarios"])
def test_catalogues_load_nothing_heavy(command: str) -> None:
    """Listing what is known loads no heavy module."""
    assert loaded_by_command(command) == set()


def test_following_a_request_needs_arrays_and_no_more() -> None:
    """``generate`` integrates over all steps with numpy, and loads nothing else that is heavy."""
    assert loaded_by_command("generate", *QUESTION, "--output-len", "256") <= {"numpy"}


def test_planning_needs_no_frames_or_plots() -> None:
    """``plan`` may use arrays, and loads nothing else that is heavy."""
    assert loaded_by_command("plan", "--model", "llama-3.1-8b", "--context", "8K") <= {"numpy"}


@pytest.mark.parametrize("own", [("tradeoff",), ("quality", "--success-rate", "0.1")])
def test_maps_need_arrays_and_no_more(own: tuple[str, ...]) -> None:
    """``tradeoff`` and ``quality`` work on grids with numpy, and load nothing else so heavy."""
    assert loaded_by_command(*own, *QUESTION) <= {"numpy"}


def test_an_error_loads_nothing_heavy() -> None:
    """A name that is not known is refused as fast as a question is answered."""
    statement = (
        "from simulator.cli.main import main\n"
        "    try: main(['estimate', '--model', 'llama-9', '--gpu', 'h100-sxm'])\n"
        "    except SystemExit as stop: assert stop.code == 1"
    )
    assert loaded_after(statement) == set()
