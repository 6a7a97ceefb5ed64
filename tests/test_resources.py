"""Files found and files written."""

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from simulator import resources
from simulator.errors import OutputError, OwnFileWarning, ProfileError
from simulator.resources import atomic_path, data_dir, readable, search_dirs, toml_files


def test_a_finished_file_has_its_name_and_nothing_else_is_left(tmp_path: Path) -> None:
    """After success the target holds what was written, alone in its folder."""
    target = tmp_path / "result.csv"
    with atomic_path(target) as temporary:
        temporary.write_text("a,b\n")
        assert not target.exists()
    assert target.read_text() == "a,b\n"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_file_leaves_the_old_one(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    """An error or Ctrl-C half-way leaves neither a half-written file nor a temporary one."""
    target = tmp_path / "result.csv"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("ne")
            raise problem

    with pytest.raises(problem):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_result_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    """Temporary files are private; a colleague must be able to read the result."""
    before = os.umask(0o022)
    try:
        with atomic_path(tmp_path / "result.csv") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "result.csv").stat().st_mode) == 0o644


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    """The message names the file and the reason."""
    target = tmp_path / "no" / "result.csv"
    with (
        pytest.raises(
            OutputError, match=r"^cannot write .*result\.csv: No such file or directory$"
        ),
        atomic_path(target),
    ):
        pass


def test_a_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    """Writing over a folder is refused, and the folder stays."""
    (tmp_path / "result.csv").mkdir()
    with (
        pytest.raises(OutputError, match=r"^cannot write .*result\.csv: "),
        atomic_path(tmp_path / "result.csv") as temporary,
    ):
        temporary.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["result.csv"]
    assert (tmp_path / "result.csv").is_dir()


def test_a_pipe_is_written_not_replaced(tmp_path: Path) -> None:
    """What is not a file, /dev/null for example, must not become one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    with atomic_path(pipe) as temporary:
        temporary.write_text("through")
    reader.join(timeout=10)
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_data_is_beside_the_package_in_a_checkout() -> None:
    """The shipped folders are found and not empty."""
    assert list(data_dir("hardware_profiles").glob("*.toml"))


def test_data_is_inside_the_package_of_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed wheel carries its data in the package, which comes before any neighbour."""
    checkout, wheel = tmp_path / "checkout" / "simulator", tmp_path / "wheel" / "simulator"
    checkout.mkdir(parents=True)
    monkeypatch.setattr(resources, "PACKAGE", checkout)
    assert data_dir("scenarios") == tmp_path / "checkout" / "scenarios"
    (wheel / "scenarios").mkdir(parents=True)
    (wheel.parent / "scenarios").mkdir()
    monkeypatch.setattr(resources, "PACKAGE", wheel)
    assert data_dir("scenarios") == wheel / "scenarios"


def test_the_users_folders_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the variable are searched in order, before the shipped one."""
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        (folder / "h100-sxm.toml").write_text("")
    (second / "mine.toml").write_text("")
    monkeypatch.setenv("TEST_PATH", os.pathsep.join([str(first), "", str(second), "/nowhere"]))
    assert search_dirs("hardware_profiles", "TEST_PATH")[:2] == [first, second]
    found = toml_files("hardware_profiles", "TEST_PATH")
    assert found["h100-sxm"] == first / "h100-sxm.toml"
    assert found["mine"] == second / "mine.toml"
    assert found["l4"].parent == data_dir("hardware_profiles")


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    """Of a file that only its owner may read, the next version is as private."""
    target = tmp_path / "result.csv"
    target.write_text("old")
    target.chmod(0o600)
    with atomic_path(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    """Unfinished files of the same target go, if nobody has written to them for long."""
    target = tmp_path / "result.csv"
    names = (".result.csv.old.part", ".result.csv.new.part", ".other.csv.old.part")
    old, new, other = (tmp_path / name for name in names)
    for path in (old, new, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (time.time() - 7200,) * 2)
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([target, new, other])


def test_hidden_files_are_no_one_s_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Editors and file systems leave ._card.toml and .#card.toml next to card.toml."""
    monkeypatch.setenv("OWN", str(tmp_path))
    for name in ("card.toml", "._card.toml", ".#card.toml"):
        (tmp_path / name).write_text("")
    assert set(toml_files("nothing", "OWN")) == {"card"}


def test_a_file_that_cannot_be_read_is_left_out_with_a_warning(tmp_path: Path) -> None:
    """The others are read; a broken one of our own is an error."""

    def read(path: Path) -> str:
        if path.stem == "bad":
            raise ProfileError(f"{path} is not TOML")
        return path.stem

    own = [tmp_path / "bad.toml", tmp_path / "good.toml"]
    with pytest.warns(OwnFileWarning, match=r"left out: .*bad\.toml is not TOML"):
        assert list(readable(read, own)) == ["good"]
    with pytest.raises(ProfileError):
        list(readable(read, [data_dir("scenarios") / "bad.toml"]))
