"""Models of the hub's cache on this machine."""

import json
import os
from pathlib import Path

import pytest

from simulator.errors import ModelError
from simulator.inputs.hub import hub_cache
from simulator.inputs.presets import load_model

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 96,
    "num_attention_heads": 6,
    "intermediate_size": 101,
    "vocab_size": 211,
}
NEW, OLD = "b" * 40, "a" * 40


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the hub's tools make it: two snapshots whose files are links to blobs."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--someone--Tiny-1B"
    (model / "blobs").mkdir(parents=True)
    (model / "refs").mkdir()
    for age, (commit, layers) in enumerate({NEW: 5, OLD: 4}.items()):
        blob = model / "blobs" / f"blob{layers}"
        blob.write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))
        os.utime(blob, (1e9 - 100 * age,) * 2)
        (model / "snapshots" / commit).mkdir(parents=True)
        (model / "snapshots" / commit / "config.json").symlink_to(blob)
    return model


@pytest.mark.parametrize(("main", "layers"), [(None, 5), (OLD, 4), (NEW, 5), ("c" * 40, 5)])
def test_an_id_is_read_from_the_cache(cached: Path, main: str | None, layers: int) -> None:
    """The snapshot of refs/main, or else the newest; its name is the id's."""
    if main is not None:
        (cached / "refs" / "main").write_text(main)
    model = load_model("someone/Tiny-1B")
    assert model.layers == layers
    assert model.name == "Tiny-1B"
    assert "snapshots" in model.source


def test_the_second_file_of_modelopt_lies_beside_it(cached: Path) -> None:
    """The snapshot's folder counts, not that of the blob which the link leads to."""
    beside = cached / "snapshots" / NEW / "hf_quant_config.json"
    beside.write_text('{"quantization": {"quant_algo": "FP8"}}')
    assert str(load_model("someone/Tiny-1B").weights) == "fp8"
    assert load_model(cached / "snapshots" / NEW).name == "Tiny-1B"


@pytest.mark.parametrize("hub_id", ["someone/Other-1B", "qwerty/zzz"])
def test_an_id_that_is_not_there_says_how_to_get_its_file(cached: Path, hub_id: str) -> None:
    """One line: the command that fetches config.json, and where to."""
    with pytest.raises(ModelError) as caught:
        load_model(hub_id)
    message = str(caught.value)
    assert f"'hf download {hub_id} config.json'" in message
    assert str(cached.parent) in message
    assert "\n" not in message


def test_a_presets_id_needs_no_file(cached: Path) -> None:
    """The names of presets come first, and paths are no ids."""
    assert load_model("openai-community/gpt2").name == "gpt2"
    with pytest.raises(ModelError, match="cannot read"):
        load_model("./someone/Tiny-1B")
    assert cached.is_dir()


def test_the_cache_is_where_the_hubs_tools_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_CACHE, or hub in HF_HOME, or in the user's cache."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_cache() == Path.home() / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert hub_cache() == Path("/caches/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/hf")
    assert hub_cache() == Path("/hf/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/models")
    assert hub_cache() == Path("/models")
