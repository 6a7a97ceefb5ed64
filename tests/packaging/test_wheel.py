"""The wheel and the source archive hold what they should, and the wheel works on its own."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

CHECKOUT = Path(__file__).parents[2]
QUESTION = ["--model", "llama-3.1-8b", "--gpu", "h100-sxm", "-n", "16", "--context", "8K"]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed and return what it printed."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shipped_files() -> set[str]:
    """Return the files of the checkout that belong in a wheel, by their names there."""
    files = {
        path.relative_to(CHECKOUT).as_posix()
        for folder in ("simulator", "hardware_profiles", "sample_rows", "scenarios")
        for path in (CHECKOUT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return {name if name.startswith("simulator/") else f"simulator/{name}" for name in files}


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source archive, and the wheel from it, without a network."""
    folder = tmp_path_factory.mktemp("dist")
    run(
        *(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, CHECKOUT), cwd=folder
    )
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    """Return the wheel."""
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """Return the wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in a fresh environment that borrows this one's dependencies.

    A path in a ``.pth`` file is searched last, and ``.pth`` files that lie there are not read: the
    finder of an editable install, which would lead to the checkout, stays out.
    """
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(python, "-c", where, cwd=folder).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder


@pytest.fixture
def elsewhere() -> dict[str, str]:
    """Return an environment in which nothing points at the checkout."""
    ours = ("PYTHON", "BIFURCATE_", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def test_wheel_has_one_top_level_name(wheel: Path) -> None:
    """Nothing lands in site-packages beside ``simulator`` (no cli, tests, hardware_profiles)."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"simulator"}


def test_wheel_holds_exactly_the_package_and_its_data(wheel: Path) -> None:
    """Every module, profile, scenario, preset and constant is in the wheel, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == shipped_files()


def test_wheel_holds_the_files_it_cannot_do_without(wheel: Path) -> None:
    """Named here as well, so that a folder lost from the checkout is noticed."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "simulator/py.typed",
        "simulator/timing/carried.toml",
        "simulator/answers/size_factors.toml",
        "simulator/timing/spread.json",
        "simulator/timing/carried_kernels.json",
        "simulator/timing/carried_libraries.json",
        "simulator/inputs/presets.toml",
        "simulator/views/explore/web/explore.html",
        "simulator/views/explore/web/model.js",
        "simulator/hardware_profiles/h100-sxm.toml",
        "simulator/hardware_profiles/mi300x.toml",
    } <= names
    assert sum(name.startswith("simulator/hardware_profiles/") for name in names) >= 30
    assert sum(name.startswith("simulator/scenarios/") for name in names) >= 12


def test_metadata(metadata: Message) -> None:
    """The distribution has the name, Python versions and licence that pyproject.toml promises."""
    assert metadata["Name"] == "bifurcated-attention-simulator"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"


def test_core_needs_no_big_library(metadata: Message) -> None:
    """A plain install brings neither torch nor scipy nor pyarrow: they are in extras."""
    requirements = metadata.get_all("Requires-Dist") or []
    core = {
        requirement.split(">=")[0].strip()
        for requirement in requirements
        if "extra ==" not in requirement
    }
    assert core == {"numpy", "pandas", "plotly", "pydantic", "rich", "typer"}


def test_source_archive_can_be_worked_on(dist: Path) -> None:
    """The source archive holds the launcher, tests, docs and tools, and no leftovers."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "cli.py",
        "conftest.py",
        "Makefile",
        "constraints.txt",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
    ):
        assert name in names
    for folder in ("tests/packaging/test_wheel.py", "docs/architecture.md", "benchmarks/sweep.py"):
        assert folder in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(".venv")]


def test_installed_command_answers_from_any_folder(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    """The console script of an installed wheel answers a real question, and so does -m."""
    bifurcate = installed / "bin" / "bifurcate"
    assert "compare" in run(bifurcate, "--help", cwd=tmp_path, env=elsewhere)
    printed = run(bifurcate, "compare", *QUESTION, "--json", cwd=tmp_path, env=elsewhere)
    answer = json.loads(printed)
    assert answer["winner"] == "bifurcated"
    module = (installed / "bin" / "python", "-m", "simulator")
    assert run(*module, "compare", *QUESTION, "--json", cwd=tmp_path, env=elsewhere) == printed


def test_installed_data_comes_from_the_wheel(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    """Code, profiles and scenarios of an installed wheel are its own, not the checkout's."""
    code = (
        "import simulator\n"
        "from simulator.inputs.hardware import profile_files\n"
        "from simulator.inputs.scenario import scenario_files\n"
        "print(simulator.__file__)\n"
        "print(*profile_files().values(), *scenario_files().values(), sep='\\n')\n"
    )
    python = installed / "bin" / "python"
    printed = run(python, "-c", code, cwd=tmp_path, env=elsewhere).splitlines()
    assert len(printed) > 40
    outside = [line for line in printed if not Path(line).is_relative_to(installed)]
    assert outside == []


def test_installed_scenario_runs(
    installed: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    """A shipped scenario is swept to a file by the installed command."""
    bifurcate = installed / "bin" / "bifurcate"
    scenario = min(path.stem for path in (CHECKOUT / "scenarios").glob("*.toml"))
    run(bifurcate, "sweep", scenario, "-o", "grid.csv", cwd=tmp_path, env=elsewhere)
    header, *rows = (tmp_path / "grid.csv").read_text().splitlines()
    assert "speedup" in header.split(",")
    assert rows


def test_version_is_said_once(metadata: Message) -> None:
    """The wheel's version is the one in simulator/_version.py."""
    scope: dict[str, str] = {}
    exec((CHECKOUT / "simulator" / "_version.py").read_text(), scope)  # noqa: S102
    assert metadata["Version"] == scope["__version__"]
