"""Loading GPU profiles: by id, alias and path, and what is said about a bad file."""

import os
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import OwnFileWarning, ProfileError
from simulator.inputs.hardware import (
    REPORTED_SHARE,
    load_hardware,
    normalise_name,
    profile_files,
    read_profile,
)
from simulator.resources import HARDWARE_PATH_VARIABLE, data_dir

CARD = """
schema_version = 1
id = "my-card"
name = "My card"
vendor = "NVIDIA"
architecture = "Hopper"
compute_capability = "9.0"
memory_type = "HBM3"
confidence = "B"
retrieved = "2026-11"
aliases = ["lab card", "MC-1"]

[peak]
memory_gb = { value = 80, source = "data sheet" }
memory_bandwidth_gb_per_s = { value = 3350, source = "data sheet" }
fp32_tflops = { value = 66.9, source = "data sheet" }
fp16_tflops = { value = 989.4, source = "data sheet" }
bf16_tflops = { value = 989.4, source = "data sheet" }
l2_mib = { value = 50, source = "data sheet" }
sm_count = { value = 132, source = "data sheet" }
pcie_gb_per_s_per_direction = { value = 64, source = "data sheet" }
tdp_w = { value = 700, source = "data sheet" }
"""


@pytest.fixture(autouse=True)
def _no_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HARDWARE_PATH_VARIABLE, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folder of profiles, searched before the shipped ones."""
    monkeypatch.setenv(HARDWARE_PATH_VARIABLE, str(tmp_path))
    return tmp_path


def write(folder: Path, old: str = "", new: str = "", *, name: str = "my-card") -> Path:
    """Write the card above with one change, and make sure the change was made."""
    text = CARD.replace("my-card", name)
    assert not old or old in text
    path = folder / f"{name}.toml"
    path.write_text(text.replace(old, new, 1) if old else text)
    return path


def complaint(path: Path) -> str:
    """Return the message a bad file gives: one line that names the file."""
    with pytest.raises(ProfileError) as caught:
        load_hardware(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_base_units() -> None:
    """Figures of the file, in GB and TFLOPS, leave the profile in bytes and FLOP per second."""
    card = load_hardware("h100-sxm")
    assert card.memory_bytes == 81_559 * 1_048_576
    assert card.memory_bandwidth_bytes_per_s == 3_350_000_000_000
    assert card.l2_bytes == 52_428_800
    assert card.sm_count == 132
    assert card.link_bytes_per_s(8) == 450_000_000_000
    assert card.peak_flops_per_s("bf16") == 989_400_000_000_000
    assert card.peak_flops_per_s("fp32") == pytest.approx(66_900_000_000_000)
    assert card.peak_flops_per_s("fp8") == 1_978_900_000_000_000


def test_rates_a_card_lacks_are_none() -> None:
    """A V100 has no bf16, no fp8 and no int8 path, and int4 is never a rate of its own."""
    card = load_hardware("v100-sxm2-32gb")
    assert card.peak_flops_per_s("fp16") == 125e12
    lacking = [card.peak_flops_per_s(name) for name in ("bf16", "fp8", "int8", "int4")]
    assert lacking == [None] * 4


def test_a_card_without_a_link_talks_over_pcie() -> None:
    """The L4 has no NVLink: its GPUs exchange data at 32 GB/s."""
    assert load_hardware("l4").link_bytes_per_s(2) == 32e9


def test_a_bridge_joins_two_cards() -> None:
    """Four A40 talk over PCIe although a pair of them has NVLink; a rack of GB200 joins 72."""
    pair = load_hardware("a40")
    assert (pair.link_bytes_per_s(2), pair.link_bytes_per_s(4)) == (56.25e9, 32e9)
    assert load_hardware("gb200").link_bytes_per_s(72) == 900e9


def test_links_to_each_peer_are_no_switch() -> None:
    """Of an MI300X's seven links of 64 GB/s one leads to each other card; NVLink has a switch."""
    mesh, bridged = load_hardware("mi300x"), load_hardware("mi210")
    assert [mesh.link_bytes_per_s(gpus) for gpus in (2, 4, 8)] == [64e9, 192e9, 448e9]
    assert [bridged.link_bytes_per_s(gpus) for gpus in (2, 4, 8)] == [50e9, 150e9, 32e9]
    assert load_hardware("h100-sxm").link_bytes_per_s(2) == 450e9


def test_reported_memory_is_what_the_driver_says() -> None:
    """An 80 GB H100 has 81,559 MiB; of a card nobody read it is carried over, and said so."""
    read, carried = load_hardware("h100-sxm"), load_hardware("a30")
    assert (read.memory_bytes, read.memory_carried) == (81_559 * 1_048_576, False)
    assert (carried.memory_bytes, carried.memory_carried) == (pytest.approx(24e9 * 1.069), True)


def test_the_carried_share_is_that_of_the_other_cards() -> None:
    """Over all shipped profiles that have both figures, the median of reported over published."""
    cards = [card for card in map(load_hardware, profile_files()) if not card.memory_carried]
    assert len(cards) == 44
    shares = [card.memory_bytes / (card.peak.memory_gb.value * 1e9) for card in cards]
    assert statistics.median(shares) == pytest.approx(REPORTED_SHARE, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("h100-sxm", "h100-sxm"),
        ("H100-SXM", "h100-sxm"),
        (" h100_sxm ", "h100-sxm"),
        ("H100 SXM", "h100-sxm"),
        ("h100", "h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("nvidia_h100_80gb_hbm3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200-sxm"),
        ("a100", "a100-sxm-80gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("Tesla V100-SXM2-32GB", "v100-sxm2-32gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA B200", "b200-sxm"),
        ("RTX-PRO-6000-SE", "rtx-pro-6000-server"),
        ("AMD Instinct MI300X", "mi300x"),
        ("Instinct MI300X", "mi300x"),
        # torch lists each die of an MI250X as a device of its own under the card's name.
        ("AMD Instinct MI250X", "mi250x-gcd"),
    ],
)
def test_names_people_and_drivers_use(name: str, expected: str) -> None:
    """Ids, names, driver strings and short names find the card, however they are written."""
    assert load_hardware(name).id == expected


@given(st.sampled_from(sorted(profile_files())), st.data())
def test_case_and_separators_never_matter(name: str, data: st.DataObject) -> None:
    """Any mix of cases, and any of '-', '_' and ' ' between parts, names the same card."""
    parts = [
        "".join(data.draw(st.sampled_from((letter, letter.upper()))) for letter in part)
        for part in name.split("-")
    ]
    text = parts[0]
    for part in parts[1:]:
        text += data.draw(st.sampled_from(("-", "_", " "))) + part
    assert load_hardware(text).id == name


@given(st.text(max_size=30))
def test_normalising_twice_changes_nothing(name: str) -> None:
    """The compared form of a name is its own compared form."""
    assert normalise_name(normalise_name(name)) == normalise_name(name)


def copy_of_the_shipped(folder: Path) -> None:
    """Copy the shipped profiles into a folder, where none has been read yet."""
    for path in profile_files().values():
        shutil.copy(path, folder)


def test_loading_by_id_reads_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id is a file's name, so no other file is opened."""
    copy_of_the_shipped(folder)
    opened: list[str] = []
    genuine = Path.open

    def spy(path: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(path.name)
        return genuine(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", spy)
    load_hardware("MI300X")
    assert opened == ["mi300x.toml"]


def test_loading_is_fast(folder: Path) -> None:
    """The best of ten loads of new files takes under 5 ms by id and under 25 ms by alias."""
    copy_of_the_shipped(folder)

    def best(name: str) -> float:
        times = []
        for _ in range(10):
            start = time.process_time()
            load_hardware(name)
            times.append(time.process_time() - start)
        return min(times)

    assert best("v100-sxm2-32gb") < 0.005
    assert best("v100") < 0.025


def test_an_unknown_name_suggests_the_nearest() -> None:
    """A slip of the finger gets the nearest name, aliases included, and where to look."""
    with pytest.raises(ProfileError, match=r"^unknown GPU 'h1000'; did you mean 'h100'\?"):
        load_hardware("h1000")
    with pytest.raises(ProfileError, match="did you mean 'Tesla V100-SXM2-32GB'"):
        load_hardware("Tesla V100-SXM2-32G")
    with pytest.raises(ProfileError, match="bifurcate gpus"):
        load_hardware("b200sxm")


@pytest.mark.parametrize("name", ["zzzz", "", "  ", "-", "mi300a/x"])
def test_a_name_like_no_other_never_loads_a_card(name: str) -> None:
    """There is no fuzzy match: what is not a name is an error of one line."""
    with pytest.raises(ProfileError) as caught:
        load_hardware(name)
    assert "\n" not in str(caught.value)


def test_with_nothing_near_the_ids_are_listed() -> None:
    """With no near name the ids are listed, and not the hundred aliases."""
    with pytest.raises(ProfileError, match="known: a10, ") as caught:
        load_hardware("zzzz")
    assert "NVIDIA" not in str(caught.value)


def test_a_path_loads_that_file(tmp_path: Path) -> None:
    """A string that ends in .toml and a Path are files, wherever they lie."""
    path = write(tmp_path)
    assert load_hardware(path).name == "My card"
    assert load_hardware(str(path)).name == "My card"
    with pytest.raises(ProfileError, match="unknown GPU 'my-card'"):
        load_hardware("my-card")


def test_a_users_id_may_be_any_file_name(folder: Path) -> None:
    """Capitals, underscores and spaces in a user's file name are fine, and still found by name."""
    path = write(folder, name="Lab H100_v2 (rack 3)")
    assert load_hardware(path).id == "Lab H100_v2 (rack 3)"
    assert load_hardware("lab-h100-v2-(rack-3)").id == "Lab H100_v2 (rack 3)"


def test_the_users_folder_wins(folder: Path) -> None:
    """A user's file hides the shipped one of the same id, and only that one."""
    write(folder, name="h100-sxm")
    assert load_hardware("H100_sxm").name == "My card"
    assert load_hardware("h100-pcie").name == "H100 PCIe 80GB"
    assert profile_files()["h100-sxm"].parent == folder


@pytest.mark.parametrize("name", ["h100", "h100-sxm"])
def test_the_users_alias_wins(folder: Path, name: str) -> None:
    """An alias in the user's folder comes before a shipped alias, and before a shipped id."""
    write(folder, '"MC-1"', f'"{name.upper()}"')
    assert load_hardware(name).id == "my-card"


def test_an_id_comes_before_an_alias_in_one_folder(folder: Path) -> None:
    """A file's own name beats another file's alias."""
    write(folder, '"MC-1"', '"z-card"', name="a-card")
    write(folder, name="z-card")
    assert load_hardware("z-card").id == "z-card"


def test_folders_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is a list like PATH: the first folder wins, a missing one does no harm."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    write(first, "My card", "The first")
    write(second, "My card", "The second")
    value = os.pathsep.join(map(str, (tmp_path / "missing", first, second)))
    monkeypatch.setenv(HARDWARE_PATH_VARIABLE, value)
    assert load_hardware("mc-1").name == "The first"


def test_a_broken_file_disturbs_only_its_own_names(folder: Path) -> None:
    """A broken file in the user's folder is named when its card is wanted, and only then."""
    (folder / "broken.toml").write_text('aliases = ["my-broken"\nid = ')
    assert load_hardware("h100").id == "h100-sxm"
    with pytest.raises(ProfileError, match=r"broken\.toml is not TOML"):
        load_hardware("my-broken")
    with pytest.raises(ProfileError, match="unknown GPU 'h1000'; did you mean 'h100'"):
        load_hardware("h1000")


def test_an_unreadable_neighbour_is_left_out(folder: Path) -> None:
    """A file that is no text stops no command; it is named in a warning."""
    write(folder, name="my-card")
    (folder / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.warns(OwnFileWarning, match=r"a\.toml: it is not a text file"):
        assert load_hardware("h100").id == "h100-sxm"


def test_an_impossible_card_of_one_s_own_is_warned_of(tmp_path: Path) -> None:
    """A bandwidth a thousandfold is answered, but not without a word; one of ours is not."""
    text = (data_dir("hardware_profiles") / "l4.toml").read_text(encoding="utf-8")
    path = tmp_path / "l4.toml"
    path.write_text(text.replace("value = 300", "value = 300000", 1))
    with pytest.warns(OwnFileWarning, match=r"memory_bandwidth_gb_per_s = 300000: cards have"):
        load_hardware(path)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    """A path to nothing, or to a folder, is one line with the reason."""
    assert "No such file" in complaint(tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "directory" in complaint(tmp_path / "folder.toml")


def test_broken_toml_says_where(tmp_path: Path) -> None:
    """A syntax error names the line."""
    path = write(tmp_path, "[peak]", "[peak")
    assert "is not TOML" in complaint(path)
    assert "line 13" in complaint(path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    """Bytes that are no text are named as such."""
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in complaint(path)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "memory_bandwidth_gb_per_s",
            "memory_bandwith_gb_per_s",
            "'peak.memory_bandwith_gb_per_s'; did you mean 'memory_bandwidth_gb_per_s'?",
        ),
        ("vendor", "vendour", "unknown key 'vendour'; did you mean 'vendor'?"),
        ("value = 80,", "valu = 80,", "unknown key 'peak.memory_gb.valu'; did you mean 'value'?"),
        ("value = 80,", "value = -80,", "peak.memory_gb.value = -80 should be greater than 0"),
        ("value = 80,", "value = 0,", "peak.memory_gb.value = 0 should be greater than 0"),
        ("value = 80,", "value = nan,", "peak.memory_gb.value = nan should be"),
        ("value = 80,", "value = inf,", "peak.memory_gb.value = inf should be a finite number"),
        ("value = 80,", 'value = "80",', "peak.memory_gb.value = '80' should be a valid number"),
        ("value = 80,", "value = true,", "peak.memory_gb.value = True should be a valid number"),
        ('{ value = 80, source = "data sheet" }', "80", "peak.memory_gb = 80 must be written"),
        (', source = "data sheet" }', " }", "peak.memory_gb.source is missing"),
        ('source = "data sheet" }', 'source = "  " }', "peak.memory_gb.source = '  '"),
        ('tdp_w = { value = 700, source = "data sheet" }', "", "peak.tdp_w is missing"),
        ("schema_version = 1", "schema_version = 2", "schema_version = 2 is not one of 1"),
        ('confidence = "B"', 'confidence = "D"', "confidence = 'D' is not one of A, B, C"),
        ('id = "my-card"', 'id = "my-crad"', "id = 'my-crad' is not the file's name 'my-card'"),
        ('["lab card", "MC-1"]', '"MC-1"', "aliases = 'MC-1' should be"),
        ('["lab card", "MC-1"]', '["MC-1", ""]', "aliases.1 = ''"),
        ("[peak]", "[peek]", "unknown key 'peek'; did you mean 'peak'?"),
    ],
)
def test_a_bad_value_is_one_clear_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    """Each slip names the file, the key, the value and, for a misspelt key, the nearest."""
    assert expected in complaint(write(tmp_path, old, new))


def test_several_slips_are_told_together(tmp_path: Path) -> None:
    """Two errors in one file are both in the line."""
    path = write(tmp_path, "value = 80,", "value = -1,")
    path.write_text(path.read_text().replace("vendor", "vendour"))
    message = complaint(path)
    assert "peak.memory_gb.value" in message
    assert "vendour" in message


def test_profiles_never_change() -> None:
    """Neither a profile nor a figure in it can be written to."""
    card = load_hardware("l4")
    with pytest.raises(AttributeError, match="frozen"):
        card.name = "other"
    with pytest.raises(AttributeError, match="frozen"):
        card.peak.memory_gb.value = 1


def test_the_hash_names_the_content(tmp_path: Path) -> None:
    """Equal files have equal hashes; one other figure gives another."""
    first = read_profile(write(tmp_path))
    again = read_profile(write(tmp_path))
    other = read_profile(write(tmp_path, "value = 80,", "value = 81,"))
    assert first.content_hash == again.content_hash
    assert first.content_hash != other.content_hash
    assert len(first.content_hash) == 12


def test_fitted_constants_are_read(tmp_path: Path) -> None:
    """A calibrated profile keeps each constant with its error, rows and date."""
    path = write(tmp_path)
    path.write_text(
        path.read_text()
        + '[fitted]\nlaunch_s = { value = 2e-6, source = "rows", stderr = 1e-7, rows = 40 }\n'
    )
    fitted = load_hardware(path).fitted["launch_s"]
    assert (fitted.value, fitted.stderr, fitted.rows) == (2e-6, 1e-7, 40)
