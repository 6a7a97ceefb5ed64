"""Models by name, by file and from plain sizes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import without
from hypothesis import example, given
from hypothesis import strategies as st

import simulator.inputs.presets
from simulator.errors import ModelError
from simulator.inputs.model import LayerGroup, count_parameters
from simulator.inputs.presets import find_preset, load_model, model_from_flags, presets

# From model cards and the metadata of the published files (recalled), or the modules that
# transformers 5.24.0 builds on the meta device; of multimodal ones the text decoder.
PUBLISHED = {
    "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "codellama-7b": 6_738_546_688,
    "codellama-13b": 13_016_028_160,
    "codellama-34b": 33_743_970_304,
    "yi-6b-200k": 6_061_035_520,
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "mixtral-8x7b": 46_702_792_704,
    "qwen2-0.5b": 494_032_768,
    "qwen2-7b": 7_615_616_512,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b-fp8": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-30b-a3b-fp8": 30_532_122_624,
    "qwen3-235b-a22b-fp8": 235_093_634_560,
    "llama-4-scout": 107_769_861_120,
    "llama-4-maverick": 400_711_848_960,
    "gemma-2-27b": 27_227_128_320,
    "gemma-3-4b": 3_880_099_328,
    "gemma-3-12b": 11_765_788_416,
    "gemma-2-9b": 9_241_705_984,
    "gpt2": 124_439_808,
    "starcoder": 15_517_456_384,
    "falcon-7b": 6_921_720_704,
    "phi-2": 2_779_683_840,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    # Less the routers' correction biases: buffers in transformers, tensors in the checkpoints.
    "deepseek-v3": 671_026_419_200 - 58 * 256,
    "kimi-k2": 1_026_408_232_448 - 60 * 384,
}
FULL = None


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_its_published_number_of_parameters(name: str) -> None:
    """To the last one: a wrong size, bias, norm or tie would show."""
    assert count_parameters(load_model(name)).total == PUBLISHED[name]


def test_an_untied_head_of_falcon_is_the_number_its_files_hold() -> None:
    """Falcon-7B's files store the tied table twice: 7,217,189,760."""
    count = count_parameters(load_model("falcon-7b", tied_embeddings=False))
    assert count.total == 7_217_189_760


def test_codegen_has_one_norm_per_layer_and_few_biases() -> None:
    """CodeGen-16B by its tensors: qkv and output without biases, MLP and head with them."""
    layer = 4 * 6144**2 + 2 * 4 * 6144**2 + 4 * 6144 + 6144 + 2 * 6144
    tables = 2 * 51_200 * 6144 + 51_200
    model = load_model("codegen-16b")
    assert count_parameters(model).total == 34 * layer + tables + 2 * 6144
    assert model.family == "multi-head"


@pytest.mark.parametrize("name", list(presets()))
def test_every_preset_says_where_it_comes_from(name: str) -> None:
    """Name, source and, where the table states it, the published count."""
    model = load_model(name)
    assert model.name == name
    assert len(model.source) > 3
    published = presets()[name].parameters
    assert published in (None, count_parameters(model).total)


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("mistral-7b", {4096: 32}),
        ("mistral-7b-v0.2", {FULL: 32}),
        ("mistral-7b-v0.3", {FULL: 32}),
        ("mixtral-8x7b", {FULL: 32}),
        ("qwen2.5-7b", {FULL: 28}),
        ("gemma-2-9b", {4096: 21, FULL: 21}),
        ("gpt-oss-20b", {128: 12, FULL: 12}),
        ("starcoder2-15b", {4096: 40}),
        ("llama-4-scout", {8192: 36, FULL: 12}),
    ],
)
def test_windows_are_those_of_the_published_file(name: str, windows: dict[int | None, int]) -> None:
    """Mistral 0.1 has a window, 0.2 and later none; Qwen2.5 has one that is switched off."""
    groups = load_model(name).layer_groups
    assert {group.window or group.chunk: group.count for group in groups} == windows


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("llama-2-7b", 524_288 // 32 // 2),
        ("mistral-7b", 131_072 // 32 // 2),
        ("deepseek-v3", 576),
        ("starcoder", 2 * 128),
        ("falcon-7b", 2 * 64),
        ("gemma-2-9b", 2 * 8 * 256),
    ],
)
def test_a_token_takes_the_known_space_in_the_cache(name: str, values: int) -> None:
    """Llama-2-7B 524,288 bytes for all layers in 16 bits, Mistral-7B 131,072, MLA 576 values."""
    assert load_model(name).cache_width == values


def test_deepseek_starts_with_three_dense_layers() -> None:
    """58 of 61 layers have experts; Qwen3-30B-A3B has them everywhere, 8 of 128 for a token."""
    assert load_model("deepseek-v3").layer_groups == (
        LayerGroup(count=3),
        LayerGroup(count=58, mlp="experts"),
    )
    qwen = load_model("qwen3-30b-a3b")
    assert qwen.layer_groups == (LayerGroup(count=48, mlp="experts"),)
    assert qwen.experts is not None
    assert (qwen.experts.count, qwen.experts.per_token) == (128, 8)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("gpt-oss-20b", "bf16 with mxfp4 experts"),
        ("deepseek-v3", "fp8_block"),
        ("qwen3-30b-a3b-fp8", "fp8_block"),
        ("llama-2-7b", "fp16"),
    ],
)
def test_weights_have_the_published_format(name: str, dtype: str) -> None:
    """MXFP4 experts, FP8 matrices, and Meta's 16 bits."""
    assert str(load_model(name).weights) == dtype


@pytest.mark.parametrize("size", ["1b", "7b"])
def test_the_papers_families_differ_in_kv_heads_alone(size: str) -> None:
    """Multi-head, multi-group and multi-query of one size: all else is equal."""
    models = [load_model(f"paper-{size}-{family}") for family in ("mha", "mg", "mqa")]
    assert [model.family for model in models] == ["multi-head", "multi-group", "multi-query"]
    rest = [without(model, "name", "kv_heads") for model in models]
    assert rest[0] == rest[1] == rest[2]


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("mistralai/Mistral-7B-v0.1", "mistral-7b"),
        ("MISTRAL_7B", "mistral-7b"),
        ("meta-llama/Llama-2-7b-hf", "llama-2-7b"),
        (" qwen2.5_7b ", "qwen2.5-7b"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3"),
        ("openai-community/gpt2", "gpt2"),
    ],
)
def test_a_model_goes_by_its_names(alias: str, name: str) -> None:
    """Hub names with or without the organisation, in any case, with _ like -."""
    assert load_model(alias) == load_model(name)


# Twelve aliases with files of their own: Qwen's model cards.
OWN_MAXIMA = {
    "Qwen/Qwen2-0.5B-Instruct": (131072, 32768),
    "Qwen/Qwen2-7B-Instruct": (131072, 32768),
    "Qwen/Qwen2.5-1.5B-Instruct": (131072, 32768),
    "Qwen/Qwen2.5-7B-Instruct": (131072, 32768),
    "Qwen/Qwen2.5-32B-Instruct": (131072, 32768),
    "Qwen/Qwen2.5-72B-Instruct": (131072, 32768),
    **{
        f"Qwen/Qwen3-{size}-Base": (40960, 32768)
        for size in ("0.6B", "1.7B", "4B", "8B", "14B", "30B-A3B")
    },
}


@pytest.mark.parametrize(("alias", "maxima"), OWN_MAXIMA.items())
def test_an_alias_has_its_own_maximum(alias: str, maxima: tuple[int, int]) -> None:
    """A chat model and its base differ in the longest context, and in nothing else."""
    other, own = load_model(find_preset(alias).name), load_model(alias)
    assert (other.max_context_tokens, own.max_context_tokens) == maxima
    assert load_model(own.name) == own
    same = {"name": other.name, "max_context_tokens": other.max_context_tokens}
    assert own.but(**same) == other


def test_every_own_maximum_is_an_aliases() -> None:
    """A maximum of its own belongs to an alias of the preset, and differs from the preset's."""
    found = {}
    for preset in presets().values():
        assert set(preset.own_max_tokens) <= set(preset.aliases)
        for alias, tokens in preset.own_max_tokens.items():
            found[alias] = (preset.model.max_context_tokens, tokens)
    assert found == OWN_MAXIMA


def test_no_two_presets_share_a_name() -> None:
    """An alias leads to one model only."""
    owners: dict[str, str] = {}
    for preset in presets().values():
        for alias in (preset.name, *preset.aliases):
            assert owners.setdefault(alias.lower().replace("_", "-"), preset.name) == preset.name


@given(start=st.sampled_from(["", "./", "../", "/", "~", "~/"]), text=st.text(max_size=12))
@example(start="", text="x" * 5000)
@example(start="./", text="x" * 5000)
@example(start="./", text="\0")
def test_any_text_is_a_model_or_a_model_error(start: str, text: str) -> None:
    """Whatever is typed as a name or a path, there is no traceback."""
    name = start + text
    if find_preset(name) is None:
        assert problem(name).startswith(("unknown model", "cannot read", "there is no config.json"))


def problem(name: str | Path, **options: Any) -> str:
    """Return the message that loading a model is refused with."""
    with pytest.raises(ModelError) as caught:
        load_model(name, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("llama3.1-8b", "llama-3.1-8b"),
        ("llama3.1:8b", "llama-3.1-8b"),
        ("mistral7b", "mistral-7b"),
        ("DeepSeekV3", "deepseek-v3"),
    ],
)
def test_another_spelling_of_one_model_is_understood(typed: str, name: str) -> None:
    """The same letters and digits are that model, however they are separated."""
    assert load_model(typed) == load_model(name)


def test_a_spelling_of_several_models_is_refused() -> None:
    """Nothing is guessed: half a name names the models that begin so."""
    message = problem("llama3")
    assert "llama-3-8b" in message
    assert "llama-3.1-8b" in message
    assert "sizes are not public" in problem("gpt-4o")


@pytest.mark.parametrize(
    ("typed", "meant"), [("meta-llama/Llama-3.1-9B", "meta-llama/Llama-3.1-8B")]
)
def test_an_unknown_name_is_answered_with_the_nearest(typed: str, meant: str) -> None:
    """The line says what was typed, what may be meant, and that a path would do."""
    message = problem(typed)
    assert f"unknown model {typed!r}; did you mean {meant!r}?" in message
    assert "config.json" in message


def test_a_name_like_no_other_is_answered_with_some_names_and_the_way_to_all() -> None:
    """Some presets, not their hundred aliases, in one line that is not long."""
    message = problem("zzzzzz")
    assert "codellama-7b" in message
    assert "meta-llama" not in message
    assert "'bifurcate models'" in message
    assert len(message) <= 300


CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 96,
    "num_attention_heads": 6,
    "intermediate_size": 101,
    "vocab_size": 211,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a model as the hub lays it out."""
    path = tmp_path / "Tiny-Model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    return path


def test_a_folder_a_file_and_their_texts_are_one_model(folder: Path) -> None:
    """The model is called as its folder, and its source is the file."""
    model = load_model(folder)
    assert model == load_model(str(folder)) == load_model(folder / "config.json")
    assert model == load_model(str(folder / "config.json"))
    assert model.name == "Tiny-Model"
    assert model.source == str(folder / "config.json")


def test_a_preset_wins_over_a_folder_of_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder called gpt2 is reached as ./gpt2; one called like no preset by its bare name."""
    monkeypatch.chdir(folder.parent)
    folder.rename(folder.with_name("gpt2"))
    assert load_model("gpt2").vocab_size == 50_257
    assert load_model("./gpt2").vocab_size == 211
    Path("gpt2").rename("tiny")
    assert load_model("tiny").vocab_size == 211


def test_a_file_of_another_name_gives_its_own(folder: Path) -> None:
    """my-model.json is the model my-model."""
    assert load_model((folder / "config.json").rename(folder / "mine.json")).name == "mine"


def test_modelopt_states_the_format_in_a_file_of_its_own(folder: Path) -> None:
    """NVIDIA's checkpoints have hf_quant_config.json beside a plain config.json."""
    quantization = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (folder / "hf_quant_config.json").write_text(json.dumps(quantization))
    assert load_model(folder).weights.name == "fp8"
    assert load_model(folder).kv_dtype == "fp8"


def test_what_config_json_states_of_its_format_outranks_the_second_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer checkpoints have both: the second file adds what the first leaves out or null."""
    seen: list[Any] = []

    def spy(config: Any, **_: Any) -> Any:
        seen.append(config["quantization_config"])
        return load_model("gpt2")

    monkeypatch.setattr(simulator.inputs.presets, "shape_from_config", spy)
    first = {"quant_algo": "MIXED_PRECISION", "quant_method": None, "ignore": ["mtp*"]}
    second = {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": first}))
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": second}))
    load_model(folder)
    (merged,) = seen
    assert merged == {
        "quant_method": "modelopt",
        "quant_algo": "MIXED_PRECISION",
        "kv_cache_quant_algo": "FP8",
        "ignore": ["mtp*"],
    }


def test_an_unknown_type_in_a_file_can_be_assumed(folder: Path) -> None:
    """The way out that the message names."""
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "new"}))
    assert "--assume llama" in problem(folder)
    assert load_model(folder, assume="llama").layers == 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON: Expecting property name"),
        ("[]", "it holds a list, not an object"),
        ('{"tokenizer_class": "X"}', "it has no model_type"),
        ("[" * 100_000, "cannot be read"),
        ("9" * 5000, "cannot be read"),
        (json.dumps({**CONFIG, "hidden_size": -5}), "hidden_size = -5 must be at least 1"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(folder: Path, content: str, words: str) -> None:
    """Neither a traceback nor a guess."""
    file = folder / "config.json"
    file.write_text(content)
    message = problem(folder)
    assert str(file) in message
    assert words in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A folder without config.json, and a path that leads nowhere."""
    assert problem(tmp_path) == f"there is no config.json in {tmp_path}"
    assert "nowhere.json: No such file" in problem(tmp_path / "nowhere.json")
    assert "No such file" in problem("./nowhere")


def test_kv_heads_can_be_replaced() -> None:
    """The model is named after the change; values that do not divide are refused with the list."""
    model = load_model("llama-2-7b", kv_heads=8)
    assert (model.kv_heads, model.name) == (8, "llama-2-7b with 8 KV heads")
    assert load_model("llama-2-7b", kv_heads=32) == load_model("llama-2-7b")
    assert "kv_heads can be 1, 2, 4, 8, 16, 32" in problem("llama-2-7b", kv_heads=5)
    assert "kv_heads = 0 should be greater than 0" in problem("llama-2-7b", kv_heads=0)
    assert "caches a latent vector" in problem("deepseek-v3", kv_heads=8)


def test_other_fields_can_be_replaced() -> None:
    """None changes nothing, layers keep their kind, a dtype may be spelled as the engines do."""
    model = load_model("llama-2-7b", layers=2, weights="bfloat16", vocab_size=None)
    assert model.layer_groups == (LayerGroup(count=2),)
    assert (model.weights.name, model.vocab_size) == ("bf16", 32_000)
    assert "unknown key 'layer'; did you mean 'layers'?" in problem("llama-2-7b", layer=2)
    assert "several kinds" in problem("gemma-2-9b", layers=2)
    assert "layers = 0 must be" in problem("gpt2", layers=0)


@pytest.mark.parametrize(
    ("hidden_size", "heads", "inner", "published"),
    [
        (4096, 32, 11008, "llama-2-7b"),
        (5120, 40, 13824, "llama-2-13b"),
        (8192, 64, 22016, "llama-65b"),
    ],
)
def test_plain_sizes_default_to_llamas(
    hidden_size: int, heads: int, inner: int, published: str
) -> None:
    """Layers, hidden size and heads alone give Llama's own model."""
    layers = load_model(published).layers
    model = model_from_flags(layers=layers, hidden_size=hidden_size, heads=heads)
    assert model.intermediate_size == inner
    assert count_parameters(model) == count_parameters(load_model(published))


def test_plain_sizes_can_all_be_given() -> None:
    """What is given is kept, None is as good as absent, and an ungated MLP is four times wide."""
    model = model_from_flags(
        layers=2,
        hidden_size=100,
        heads=3,
        kv_heads=1,
        head_dim=40,
        vocab_size=77,
        gated_mlp=False,
        tied_embeddings=True,
        max_context_tokens=None,
        weights="float16",
    )
    assert (model.kv_heads, model.head_dim, model.intermediate_size) == (1, 40, 400)
    assert (model.tied_embeddings, model.weights.name, model.vocab_size) == (True, "fp16", 77)
    assert model.max_context_tokens is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "hidden_size = 128 is not a multiple of heads = 3; give head_dim"),
        (
            {"kv_heads": 3},
            "heads (8) is not a multiple of kv_heads (3); kv_heads can be 1, 2, 4, 8",
        ),
        ({"layers": 0}, "layers = 0 must be a whole number above zero"),
        ({"hidden_size": 128.5}, "hidden_size = 128.5 must be a whole number above zero"),
        (
            {"hidden_size": "128x"},
            "hidden_size = '128x' is not a count; write 8192, 8K (8192) or 8k (8000)",
        ),
        ({"heads": -8}, "heads = -8 must be a whole number above zero"),
        ({"vocab_size": 0}, "vocab_size = 0 should be greater than 0"),
        ({"kv_head": 2}, "unknown key 'kv_head'; did you mean 'kv_heads'?"),
    ],
)
def test_bad_plain_sizes_are_one_clear_line(changes: dict[str, Any], message: str) -> None:
    """The size, its value, and what would be valid."""
    with pytest.raises(ModelError) as caught:
        model_from_flags(**{"layers": 2, "hidden_size": 128, "heads": 8, **changes})
    assert str(caught.value) == f"model custom: {message}"


def test_loading_a_model_imports_nothing_heavy() -> None:
    """The command line starts in a blink: no numpy, pandas or torch for a name."""
    code = (
        "import sys; from simulator.inputs.presets import load_model; load_model('llama-3.1-8b');"
        "print({'numpy', 'pandas', 'torch', 'scipy', 'rich'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
