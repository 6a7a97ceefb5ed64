"""Every answer says what was assumed in reading its model."""

import json
from pathlib import Path

import pytest
from command_line import bifurcate

DECODER = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128_256,
}
TOWER = {"hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 512}
# What the file of each folder must make every answer say.
NOTES = {
    "multimodal": ("multimodal: the vision tower, about 1 M parameters, is in memory",),
    "assumed": ("assumed: read as llama: the file's model_type is mystery", "is not known"),
}
POINT = ("--context", "4K", "-n", "8")
COMMANDS = (
    ("estimate", *POINT),
    ("compare", *POINT),
    ("generate", *POINT),
    ("plan", *POINT),
    ("tradeoff", *POINT, "--target-kv-heads", "1"),
    ("quality", *POINT, "--success-rate", "0.1"),
    ("tree", "--tree", "system=2K,problem=512x4", "-n", "8"),
)


@pytest.fixture
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, ...]:
    """The options that ask about a multimodal file, or about one of an unknown type."""
    folder = tmp_path / request.param
    folder.mkdir()
    config = {
        "multimodal": {"model_type": "llava", "text_config": {**DECODER, "model_type": "llama"}}
        | {"vision_config": TOWER},
        "assumed": {**DECODER, "model_type": "mystery"}
        | {"quantization_config": {"quant_method": "new"}},
    }[request.param]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assume = ("--assume", "llama") if request.param == "assumed" else ()
    return (str(folder), *assume)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("model", NOTES, indirect=True)
def test_every_answer_says_how_its_model_was_read(
    command: tuple[str, ...], model: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """In the footer of the table, and in the notes of the JSON."""
    asked = (*command, "-m", *model, "-g", "h100-sxm")
    table = " ".join(bifurcate(*asked).text.split())
    answer = json.dumps(bifurcate(*asked, "--json").json)
    for note in NOTES[request.node.callspec.params["model"]]:
        assert note in table
        assert note in answer


@pytest.mark.parametrize("model", NOTES, indirect=True)
def test_a_model_is_shown_with_its_notes(
    model: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """Without its name before each, which the first line has."""
    shown = " ".join(bifurcate("models", "show", *model).text.split())
    for note in NOTES[request.node.callspec.params["model"]]:
        assert note.partition(": ")[2] in shown


@pytest.mark.parametrize("model", ["multimodal"], indirect=True)
@pytest.mark.parametrize("command", [("report", *POINT), ("explore", "one-sample")])
def test_a_page_says_how_its_model_was_read(
    command: tuple[str, ...], model: tuple[str, ...], tmp_path: Path
) -> None:
    """The report among its notes, the explorer below its figures; neither can assume a type."""
    page = tmp_path / "page.html"
    done = bifurcate(*command, "-m", *model, "-g", "h100-sxm", "-o", str(page))
    assert done.code == 0
    assert all(note in page.read_text(encoding="utf-8") for note in NOTES["multimodal"])
