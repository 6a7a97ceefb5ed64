"""The rules of docs/architecture.md hold for every module, whatever the modules are called."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import simulator
from simulator.cli.main import COMMANDS

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "simulator"
PAGE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8")
# Where a user comes in: the command, each of its commands (loaded by name), and the Python API.
ENTRANCES = {
    "simulator",
    "simulator.__main__",
    *(f"simulator.cli.{module}" for module in COMMANDS.values()),
}
# A page to be read, which nothing else needs.
APART = {"simulator.one_page"}


@cache
def modules() -> dict[str, Path]:
    """Return the file of every module and package, by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module apart from what only type checkers read."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for other in child.orelse:
                yield from (other, *nodes(other))
        else:
            yield child
            yield from nodes(child)


def imported(node: ast.AST) -> list[str]:
    """Return the modules of ours that a statement imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports name the whole path"
        public = simulator._HOMES if node.module == "simulator" else {}
        full = {f"{node.module}.{alias.name}": alias.name for alias in node.names}
        names = [
            name if name in modules() else public.get(alias, str(node.module))
            for name, alias in full.items()
        ]
    else:
        names = []
    return [name for name in names if name in modules()]


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return what each module imports, at its top or inside a function."""
    return {
        name: frozenset(
            other
            for node in nodes(ast.parse(path.read_text(encoding="utf-8")))
            for other in imported(node)
        )
        for name, path in modules().items()
    }


def named(path: Path) -> set[str]:
    """Return the modules that a file names in full in a text, to load or run them by name."""
    texts = (
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in texts if text in modules()}


def reached(starts: set[str]) -> set[str]:
    """Return the modules that some others load, and those that these load in turn."""
    seen: set[str] = set()
    ahead = list(starts)
    while ahead:
        name = ahead.pop()
        if name and name not in seen:
            seen.add(name)
            ahead += [*imports()[name], *named(modules()[name]), name.rpartition(".")[0]]
    return seen


def floors() -> dict[str, int]:
    """Return the height of every floor, from the contract in pyproject.toml; 0 is the lowest."""
    config = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = (item["layers"] for item in contracts if item["type"] == "layers")
    return {
        name: height for height, layer in enumerate(reversed(layers)) for name in layer.split(" | ")
    }


def floor_of(name: str) -> str:
    """Return the floor a module is on."""
    return name.split(".")[1]


def circles() -> list[set[str]]:
    """Return the sets of modules each of which needs all others of its set."""
    below = {name: reached_by_imports(name) for name in modules()}
    found = []
    for name in sorted(modules()):
        circle = {other for other in below[name] if name in below[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def reached_by_imports(start: str) -> set[str]:
    """Return the modules that one imports, and those that these import in turn."""
    seen: set[str] = set()
    ahead = list(imports()[start])
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead += imports()[name]
    return seen


def test_every_import_points_down() -> None:
    """A module imports from its own floor or from one below, and the API by its module."""
    height = {**floors(), "_version": -1}
    upwards = [
        f"{name} imports {other}"
        for name, others in imports().items()
        if name.count(".") and floor_of(name) in height
        for other in others
        if other != "simulator" and floor_of(other) != floor_of(name)
        if height[floor_of(other)] >= height[floor_of(name)]
    ]
    assert not upwards


def test_every_module_has_a_floor() -> None:
    """Only the version and the two ways to start the command are on none."""
    above = {name for name in modules() if name.count(".") and floor_of(name) not in floors()}
    assert above == {"simulator.__main__", "simulator._version"}


def test_no_module_is_an_orphan() -> None:
    """The command line or the Python API leads to every module, the one page apart."""
    assert set(simulator._HOMES.values()) <= reached({"simulator"})
    assert set(modules()) - reached(ENTRANCES) == APART


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even inside functions."""
    assert circles() == []


def test_the_page_names_every_folder() -> None:
    """Each folder of the package is in the table of folders, and no other."""
    rows = re.findall(r"^\| `([a-z_/]+)/` \|", PAGE, re.MULTILINE)
    folders = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_dir()
        and any(child.is_file() for child in path.iterdir())
        and path.name != "__pycache__"
    }
    assert sorted(rows) == sorted(folders)


def test_the_files_that_the_page_names_exist() -> None:
    """A file with its folder, such as `cli/main.py`, is in the package, or in the checkout."""
    for name in re.findall(r"`([a-z_]+/[a-z_/]+\.[a-z]+)`", PAGE):
        assert (PACKAGE / name).is_file() or (CHECKOUT / name).is_file(), name


def test_typer_is_used_by_its_public_names() -> None:
    """A new version of Typer may rename what begins with an underscore."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in modules().values())
    assert not re.findall(r"^\s*(?:from|import) typer[a-z_.]*\._.*$", text, re.MULTILINE)
