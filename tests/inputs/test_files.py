"""A file is read once, and again once it has changed; wrong arguments are errors of ours."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import simulator
from simulator.errors import InputError, ModelError, ProfileError, SimulatorError
from simulator.inputs import files
from simulator.inputs.csv_files import read_problem_counts, read_training_runs
from simulator.inputs.files import file_version, read_if_changed
from simulator.inputs.hardware import as_gpu, load_hardware, read_profile
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.presets import as_model, load_model, model_from_flags
from simulator.inputs.scenario import load_scenario, read_scenario, verdict_of
from simulator.inputs.tree import read_tree
from simulator.resources import HARDWARE_PATH_VARIABLE, data_dir
from simulator.units import parse_count

H100 = data_dir("hardware_profiles") / "h100-sxm.toml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folder of profiles, searched before the shipped ones."""
    monkeypatch.setenv(HARDWARE_PATH_VARIABLE, str(tmp_path))
    return tmp_path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as old at once, so that what was read of them is kept."""
    monkeypatch.setattr(files, "SETTLED_NS", -1)


def card(folder: Path, name: str, alias: str, title: str = "Mine") -> Path:
    """Write the profile of an H100 under another name, with one alias."""
    text = re.sub(r"aliases = \[[^\]]*\]", "aliases = []", H100.read_text(encoding="utf-8"))
    heads = {
        "id": f'id = "{name}"',
        "name": f'name = "{title}"',
        "aliases": f'aliases = ["{alias}"]',
    }
    changed = [heads.get(line.partition(" = ")[0], line) for line in text.splitlines()]
    assert sum(line in heads.values() for line in changed) == len(heads)
    path = folder / f"{name}.toml"
    path.write_text("\n".join(changed), encoding="utf-8")
    return path


@pytest.mark.usefixtures("settled")
def test_a_file_is_read_again_only_when_it_has_changed(tmp_path: Path) -> None:
    """Size, time and replacement count, one by one; other arguments have results of their own."""
    reads: list[tuple[str, str]] = []

    @read_if_changed
    def read(path: Path, mark: str = "") -> str:
        reads.append((path.name, mark))
        return path.read_text()

    path = tmp_path / "a"
    path.write_text("one")
    assert [read(path), read(Path(str(path))), read(path, "x"), read(path, "x")] == ["one"] * 4
    assert reads == [("a", ""), ("a", "x")]
    path.write_text("three")
    assert read(path) == "three"
    os.utime(path, ns=(1, 1))
    assert read(path) == "three"
    (tmp_path / "b").write_text("other")
    os.utime(tmp_path / "b", ns=(1, 1))
    (tmp_path / "b").replace(path)
    assert read(path) == "other"
    assert len(reads) == 5


def test_what_changed_a_moment_ago_is_not_kept(tmp_path: Path) -> None:
    """Two changes within one tick of the clock leave the same size and time."""
    path = tmp_path / "a"
    path.write_text("one")
    assert file_version(path) != file_version(path)
    assert file_version(H100) == file_version(str(H100))
    assert file_version(tmp_path / "none") is None
    assert file_version("\0") is None


@pytest.mark.usefixtures("settled")
def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    """A program that reads ever new files does not grow with them."""
    reads: list[Path] = []

    @read_if_changed
    def read(path: Path, number: int) -> int:
        reads.append(path)
        return number

    for number in range(files.MOST_KEPT + 1):
        read(tmp_path, number)
    read(tmp_path, files.MOST_KEPT)
    assert len(reads) == files.MOST_KEPT + 1
    read(tmp_path, 0)
    assert len(reads) == files.MOST_KEPT + 2


@pytest.mark.parametrize("name", ["h100-sxm", "H100_SXM", "NVIDIA H100 80GB HBM3", H100, str(H100)])
def test_a_shipped_profile_is_built_once(name: str | Path) -> None:
    """By id, alias or path, the same card is the same object."""
    assert load_hardware(name) is load_hardware(name)
    assert load_hardware(name) == load_hardware("h100-sxm")


@pytest.mark.parametrize("age", ["new", "settled"])
def test_a_users_folder_is_followed(
    folder: Path, age: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file is found, an edited one read again and a removed one forgotten."""
    if age == "settled":
        monkeypatch.setattr(files, "SETTLED_NS", -1)
    for name in ("lab-card", "lab-alias"):
        with pytest.raises(ProfileError, match="unknown GPU"):
            load_hardware(name)
    path = card(folder, "lab-card", "lab-alias")
    assert load_hardware("lab-card").name == load_hardware("lab-alias").name == "Mine"
    card(folder, "lab-card", "new-alias", "Another")
    assert load_hardware("lab-card").name == load_hardware("new-alias").name == "Another"
    assert load_hardware(path).name == "Another"
    with pytest.raises(ProfileError, match="unknown GPU"):
        load_hardware("lab-alias")
    card(folder, "h100-sxm", "x", "Hides the shipped one")
    assert load_hardware("h100-sxm").name == "Hides the shipped one"
    (folder / "h100-sxm.toml").unlink()
    assert load_hardware("h100-sxm").name == load_hardware(H100).name
    path.unlink()
    with pytest.raises(ProfileError, match="unknown GPU"):
        load_hardware("lab-card")


def test_the_folders_may_change_between_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment variable is read on every call."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        card(tmp_path / name, "lab-card", "x", name)
        monkeypatch.setenv(HARDWARE_PATH_VARIABLE, str(tmp_path / name))
        assert load_hardware("lab-card").name == name
    monkeypatch.delenv(HARDWARE_PATH_VARIABLE)
    with pytest.raises(ProfileError, match="unknown GPU"):
        load_hardware("lab-card")


@pytest.mark.usefixtures("settled")
def test_an_error_is_not_kept(folder: Path) -> None:
    """A broken file that was mended is read, and a good one that was broken is an error."""
    path = folder / "lab-card.toml"
    path.write_text("id =")
    for _ in range(2):
        with pytest.raises(ProfileError, match="is not TOML"):
            load_hardware("lab-card")
    card(folder, "lab-card", "x")
    assert load_hardware("lab-card").name == "Mine"
    path.write_text('id = "lab-card"')
    with pytest.raises(ProfileError, match="is missing"):
        load_hardware("lab-card")


@pytest.mark.parametrize("age", ["new", "settled"])
def test_a_models_file_is_followed(
    tmp_path: Path, age: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edited config.json is read again, and the file beside it that states the format."""
    if age == "settled":
        monkeypatch.setattr(files, "SETTLED_NS", -1)
    config = tmp_path / "config.json"
    text = '{"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, '
    text += '"num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 100}'
    config.write_text(text)
    assert load_model(config) == load_model(tmp_path)
    assert (load_model(config) is load_model(config)) == (age == "settled")
    config.write_text(text.replace('layers": 2', 'layers": 3'))
    assert load_model(config).layers == 3
    assert load_model(config, assume="granite").notes != load_model(config).notes
    assert load_model(config).weights.name == "bf16"
    beside = tmp_path / "hf_quant_config.json"
    beside.write_text('{"quantization": {"quant_algo": "FP8"}}')
    assert load_model(config).weights.name == "fp8"
    beside.unlink()
    assert load_model(config).weights.name == "bf16"


def test_a_file_too_large_for_a_config_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names it; a file of the largest size is read."""
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama"}')
    monkeypatch.setattr(files, "LARGEST_FILE", 23)
    with pytest.raises(ModelError, match="is missing"):
        load_model(config)
    monkeypatch.setattr(files, "LARGEST_FILE", 22)
    with pytest.raises(ModelError, match="it has more than 22 characters"):
        load_model(config)


def test_a_stream_without_end_is_not_read() -> None:
    """/dev/zero named as a model is an error, not a full memory."""
    with pytest.raises(ModelError, match="more than"):
        load_model(Path("/dev/zero"))


def test_repeated_loads_cost_microseconds() -> None:
    """A file's state is asked for and no more: 15 and 3 us when this was written."""

    def best_us(load: Callable[[], object]) -> float:
        times = []
        for _ in range(20):
            start = time.process_time()
            for _ in range(100):
                load()
            times.append(time.process_time() - start)
        return min(times) * 1e4

    assert best_us(lambda: load_hardware("h100-sxm")) < 40
    assert best_us(lambda: load_model("llama-3.1-8b")) < 40
    shape = load_model("llama-3.1-8b")
    assert best_us(lambda: count_parameters(shape)) < 20


def test_what_is_shared_stays_as_it_was_read() -> None:
    """No answer changes the profile or the shape that the next one gets."""
    profile, shape = load_hardware("h100-sxm"), load_model("deepseek-v3")
    before = profile.as_dict(), shape.as_dict()
    workload: dict[str, Any] = {"samples": 4, "context_tokens": "1K", "tensor_parallel": 8}
    simulator.compare("deepseek-v3", "h100-sxm", **workload)
    simulator.generate("deepseek-v3", "h100-sxm", output_tokens=4, **workload)
    simulator.plan("deepseek-v3", ["h100-sxm"], **workload)
    assert (profile.as_dict(), shape.as_dict()) == before
    assert read_profile(H100) is profile


def test_a_changed_copy_of_a_profile_has_a_hash_of_its_own() -> None:
    """The hash in a result tells what was used, also after figures were replaced."""
    profile = load_hardware("h100-sxm")
    before = profile.content_hash
    bare = profile.but(fitted={})
    assert bare.content_hash != before
    assert profile.but(fitted={}).content_hash == bare.content_hash
    assert profile.but() == profile
    assert hash(profile.but()) == hash(profile) != hash(bare)


WRONG: tuple[Any, ...] = (None, 2.5, True, b"x", [], {}, ("h100-sxm",), object(), "\0", "\ud800")


@pytest.mark.parametrize(
    "value", WRONG, ids=lambda value: "an object" if type(value) is object else repr(value)
)
@pytest.mark.parametrize(
    "call",
    [
        load_hardware,
        as_gpu,
        load_model,
        as_model,
        load_scenario,
        read_profile,
        read_scenario,
        read_tree,
        parse_count,
        read_problem_counts,
        read_training_runs,
        lambda value: load_hardware(f"{value}.toml"),
        lambda value: load_model(f"./{value}"),
        lambda value: load_model("gpt2", kv_heads=value or "x"),
        lambda value: load_model("./none.json", assume=value or []),
        lambda value: load_model("gpt2", layers=value or "x"),
        lambda value: load_model("gpt2", weights=value or "x"),
        lambda value: load_model("gpt2", layer_groups=value or "x"),
        lambda value: load_model("gpt2", nothing=value or "x"),
        lambda value: load_model("gpt2").with_kv_heads(value),
        lambda value: as_model(load_model("gpt2"), value or "x"),
        lambda value: model_from_flags(layers=value, hidden_size=64, heads=4),
        lambda value: model_from_flags(layers=2, hidden_size=value, heads=4),
        lambda value: model_from_flags(layers=2, hidden_size=64, heads=value),
        lambda value: model_from_flags(layers=2, hidden_size=64, heads=4, head_dim=value or "x"),
        lambda value: model_from_flags(layers=2, hidden_size=64, heads=4, qk_norm=value or "x"),
    ],
)
def test_a_wrong_argument_is_an_error_of_ours(call: Callable[[Any], object], value: Any) -> None:
    """Whatever is given where a name, path or size belongs, one line says what is wrong with it."""
    if call is read_tree and value in ([], ()):
        assert call(value) == ()
        return
    with pytest.raises(SimulatorError) as caught:
        call(value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("content", ["a = " + "[" * 100_000, "a = " + "9" * 5000])
def test_a_file_that_python_cannot_read_is_one_line(folder: Path, content: str) -> None:
    """Too deep a nesting, or too long a number, is not a traceback."""
    (folder / "deep.toml").write_text(content)
    with pytest.raises(ProfileError, match=r"deep\.toml cannot be read: a number too long"):
        load_hardware("deep")


def test_errors_about_values_are_value_errors_too() -> None:
    """A validator may raise them, and who catches ValueError catches them."""
    assert issubclass(InputError, ValueError)
    with pytest.raises(ValueError, match="is not a count"):
        parse_count("9" * 5000)
    with pytest.raises(ValueError, match="at least one speed-up"):
        verdict_of([])


def test_sizes_are_taken_as_text() -> None:
    """Where a size belongs, "4K" is as good as 4096."""
    assert load_model("gpt2").with_kv_heads("1") == load_model("gpt2", kv_heads=1)
    assert load_model("gpt2", layers="1K", vocab_size="32k").layer_groups[0].count == 1024
    text: dict[str, Any] = {"layers": "2", "hidden_size": "4K", "heads": "32", "kv_heads": "8"}
    text |= {"head_dim": "128", "intermediate_size": "14K", "vocab_size": "32k"}
    numbers = {name: parse_count(size) for name, size in text.items()}
    assert model_from_flags(**text) == model_from_flags(**numbers)
    assert ModelShape(name="custom", **text) == ModelShape(name="custom", **numbers)
