"""Rows on disk survive whatever a killed process leaves behind."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import MeasurementError
from simulator.evidence.measure.cells import GemmCell
from simulator.evidence.measure.rows import COLUMNS, Machine, Outcome, row_of
from simulator.evidence.measure.store import Store, locked, read_environment, write_environment

CARD = Machine(gpu="NVIDIA H100 80GB HBM3", framework="torch", version="2.13.0")


def a_cell(number: int) -> GemmCell:
    """A cell that differs from others by its number."""
    return GemmCell(m=number + 1, n=64, k=64)


def a_row(number: int, note: str = "") -> dict[str, object]:
    """A row of a cell."""
    outcome = Outcome(status="ok", seconds=[1e-5, 1.1e-5, 1.2e-5], note=note)
    return row_of(a_cell(number), CARD, outcome)


def filled(folder: Path, rows: int = 3) -> Path:
    """A folder with some rows; returns their file."""
    store = Store(folder)
    for number in range(rows):
        store.append("gemm", a_row(number))
    return store.path("gemm")


def keys(count: int) -> set[str]:
    """The keys of the first cells."""
    return {a_cell(number).key for number in range(count)}


def test_rows_are_there_again(tmp_path: Path) -> None:
    """What was appended is found by the next run, under the same header once."""
    path = filled(tmp_path)
    assert Store(tmp_path).done == keys(3)
    lines = path.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS["gemm"])
    assert len(lines) == 4


def test_columns_of_published_rows_come_first() -> None:
    """The columns of the published measurements of the same kinds are all there."""
    published = {
        "gemm": "source gpu framework version kernel dtype timing m n k latency_us",
        "elementwise": "source gpu framework version timing dtype op rows width bytes latency_us",
        "memory": "source test gpu working_set_bytes threads occupancy_pct gb_per_s",
        "attention": (
            "source gpu framework mode kernel timing dtype batch q_heads kv_heads head_dim "
            "prefix_len suffix_len latency_us"
        ),
        "step": (
            "source table gpu model expand_kv weights_dtype tensor_parallel context_tokens "
            "samples attention kernel kv_layout execution status step_ms"
        ),
    }
    for kind, text in published.items():
        assert set(text.split()) <= set(COLUMNS[kind])


def test_a_note_never_breaks_a_line(tmp_path: Path) -> None:
    """An error message of several lines with commas and quotes is one row all the same."""
    store = Store(tmp_path)
    store.append("gemm", a_row(0, note='CUDA error:\n"bad",\r\n  thing\n'))
    store.append("gemm", a_row(1))
    assert Store(tmp_path).done == keys(2)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_loses_at_most_the_torn_row(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut at any byte: whole rows stay, the torn one is dropped, and appending goes on."""
    folder = tmp_path_factory.mktemp("cut")
    path = filled(folder)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = max(0, content[:cut].count(b"\n") - 1)
    store = Store(folder)
    assert store.done == keys(whole)
    for number in range(whole, 3):
        store.append("gemm", a_row(number))
    assert Store(folder).done == keys(3)
    assert path.read_bytes() == content


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\xff\xfe\n", b'"torn', b"a,b,c\n", b"\n", b",,\n"])
def test_garbage_at_the_end_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    """A corrupted tail is dropped and named; the rows before it stay."""
    path = filled(tmp_path)
    good = path.read_bytes()
    path.write_bytes(good + tail)
    store = Store(tmp_path)
    assert store.done == keys(3)
    assert len(store.dropped) == 1
    assert "line 5" in store.dropped[0]
    assert path.read_bytes() == good


def test_looking_without_repairing_changes_nothing(tmp_path: Path) -> None:
    """A dry run leaves a torn line where it is."""
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes() + b"torn")
    before = path.read_bytes()
    assert Store(tmp_path, repair=False).done == keys(3)
    assert path.read_bytes() == before


def test_garbage_in_the_middle_is_an_error_with_its_line(tmp_path: Path) -> None:
    """Only the end can be torn by a kill: damage elsewhere is said, not hidden."""
    path = filled(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1], b"nonsense\n", lines[3]]))
    with pytest.raises(MeasurementError, match=r"gemm\.csv, line 3: not a row"):
        Store(tmp_path)


def test_a_repeated_row_is_an_error(tmp_path: Path) -> None:
    """Two rows of one cell: somebody joined files, and neither row can be trusted."""
    path = filled(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[1]]))
    with pytest.raises(MeasurementError, match="has two rows"):
        Store(tmp_path)


def test_columns_of_another_version_are_not_mixed(tmp_path: Path) -> None:
    """A file with other columns is left alone."""
    (tmp_path / "gemm.csv").write_text("m,n,k,latency_us\n1,2,3,4\n")
    with pytest.raises(MeasurementError, match="other columns"):
        Store(tmp_path)


def test_only_one_run_writes_at_a_time(tmp_path: Path) -> None:
    """A second run in the same folder is refused while the first holds it, and not after."""
    with locked(tmp_path), pytest.raises(MeasurementError, match="another run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """No rights, no traceback."""
    tmp_path.chmod(0o500)
    with pytest.raises(MeasurementError, match="cannot write"), locked(tmp_path / "new"):
        pass


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path: Path) -> None:
    """The folder's name is taken by a file."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(MeasurementError, match="cannot write"), locked(tmp_path / "taken"):
        pass


def test_the_environment_record_is_json_or_an_error(tmp_path: Path) -> None:
    """It is read back as written; a broken one is named."""
    assert read_environment(tmp_path) is None
    write_environment(tmp_path, {"name": "H100"})
    assert read_environment(tmp_path) == {"name": "H100"}
    (tmp_path / "environment.json").write_text("{")
    with pytest.raises(MeasurementError, match="not JSON"):
        read_environment(tmp_path)
