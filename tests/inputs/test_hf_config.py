"""Reading config.json: every model type against what transformers builds, and every trap."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.transformer import decode_operations
from simulator.errors import ModelError
from simulator.inputs.hf_config.model_types import MODEL_TYPES, NESTED, shape_from_config
from simulator.inputs.model import ModelShape, count_parameters, draft_matrices
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

DATA = Path(__file__).parents[1] / "data"
GOLDEN = json.loads((DATA / "hf_models.json").read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = GOLDEN["cases"]


def sizes(
    model_type: str, layers: int, hidden: int, heads: int, inner: int, vocabulary: int
) -> dict[str, Any]:
    """Return the keys that state a model's sizes."""
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
    }


LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 96,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 101,
    "vocab_size": 211,
}
MIXTURE = {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 23}
LATENT = {**LLAMA, "model_type": "deepseek_v3", "n_routed_experts": 8, "num_experts_per_tok": 2}

# Sizes and published parameter counts of models whose types transformers does not have. The last
# three counts are published in billions only: 7.3, 14.5 and, without the embedding, 13.6.
PUBLISHED: list[tuple[dict[str, Any], int]] = [
    (sizes("baichuan", 32, 4096, 32, 11008, 64_000), 7_000_559_616),
    (sizes("baichuan", 40, 5120, 40, 13696, 125_696), 13_896_668_160),
    (
        {
            **sizes("chatglm", 28, 4096, 32, 13696, 65_024),
            "multi_query_attention": True,
            "multi_query_group_num": 2,
            "add_qkv_bias": True,
        },
        6_243_584_000,
    ),
    (
        {
            **sizes("deepseek", 28, 2048, 16, 10944, 102_400),
            "moe_intermediate_size": 1408,
            "n_routed_experts": 64,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "first_k_dense_replace": 1,
        },
        16_375_728_128,
    ),
    (
        {
            **sizes("internlm2", 32, 4096, 32, 14336, 92_544),
            "num_key_value_heads": 8,
            "bias": False,
        },
        7_737_708_544,
    ),
    (sizes("minicpm", 40, 2304, 36, 5760, 122_753), 2_724_880_896),
    (
        {
            "model_type": "phi-msft",
            "n_layer": 24,
            "n_embd": 2048,
            "n_head": 32,
            "vocab_size": 51200,
        },
        1_418_270_720,
    ),
    (sizes("phi3_v", 32, 3072, 32, 8192, 32_064), 3_821_079_552),
    (sizes("qwen", 24, 2048, 16, 11008, 151_936), 1_836_828_672),
    (sizes("qwen", 32, 4096, 32, 22016, 151_936), 7_721_324_544),
    (
        {**sizes("kimi_k2", 61, 7168, 64, 18432, 163_840), "n_routed_experts": 384}
        | {"first_k_dense_replace": 1},
        1_026_408_232_448 - 60 * 384,
    ),
    (sizes("internlm", 32, 4096, 32, 11008, 103_168), 7_321_948_160),
    (sizes("orion", 40, 5120, 40, 15360, 84_608), 14_498_703_360),
    ({**sizes("minicpm", 40, 2304, 36, 5760, 122_753), "num_experts": 8}, 13_873_291_776),
]

# Types that test_hf_varied_models.py compares with published sizes.
PUBLISHED_ELSEWHERE = {"deci", "nemotron-nas", "openelm", "step3_text"}


def read(config: Any, **changes: Any) -> ModelShape:
    """Read a config, some keys changed; a change to ``...`` leaves the key out."""
    if changes:
        config = {**config, **changes}
        config = {key: value for key, value in config.items() if value is not ...}
    return shape_from_config(config, name="tiny", where="config.json")


def complaint(config: Any, **changes: Any) -> str:
    """Return the message a config is refused with."""
    with pytest.raises(ModelError) as caught:
        read(config, **changes)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("config.json")
    return message


def windows(model: ModelShape) -> Counter[int | None]:
    """Count the layers of each window or chunk."""
    found: Counter[int | None] = Counter()
    for group in model.layer_groups:
        found[group.window or group.chunk] += group.count
    return found


def case_id(case: dict[str, Any]) -> str:
    """Name a golden case by its type and place."""
    return f"{case['config']['model_type']}-{CASES.index(case)}"


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_every_model_has_as_many_parameters_as_transformers_builds(case: dict[str, Any]) -> None:
    """The count derived from the file is that of the modules built from the same file."""
    assert count_parameters(read(case["config"])).total == case["parameters"]


@pytest.mark.parametrize("case", [case for case in CASES if "windows" in case], ids=case_id)
def test_every_layer_has_the_window_that_transformers_gives_it(case: dict[str, Any]) -> None:
    """Defaults, patterns and switches lead to as many layers of each window or chunk."""
    derived: Counter[int | None] = Counter()
    for group in read(case["config"]).layer_groups:
        derived[group.window or group.chunk] += group.count
    assert derived == Counter(case["windows"])


@pytest.mark.parametrize("case", [case for case in CASES if "cache" in case], ids=case_id)
def test_every_layer_caches_what_transformers_caches(case: dict[str, Any]) -> None:
    """Values per token and tokens kept, layer by layer, are those of a real forward pass."""
    model = read(case["config"])
    tokens = GOLDEN["tokens"]
    derived: Counter[tuple[int, int]] = Counter()
    for group in model.layer_groups:
        # transformers keeps the last tokens of a chunk, as of a window, whatever queries see.
        limit = group.window or group.chunk
        kept = tokens if limit is None else min(tokens, limit - 1)
        derived[model.of(group).cache_width, kept] += group.count
    assert derived == Counter((width, kept) for width, kept in case["cache"])


def test_every_model_type_is_among_the_golden_cases() -> None:
    """No entry of the table goes unchecked: by transformers, or by a published count.

    Some types whose layers differ are in files and tests of their own.
    """
    files = [json.loads(path.read_text()) for path in DATA.glob("hf_*.json")]
    checked = {case["config"]["model_type"] for file in files for case in file["cases"]}
    checked |= {config["model_type"] for config, _ in PUBLISHED} | PUBLISHED_ELSEWHERE
    checked |= {NESTED[name] for name in checked & set(NESTED)}
    entries = [MODEL_TYPES[name] for name in checked & set(MODEL_TYPES)]
    unchecked = {name for name, kind in MODEL_TYPES.items() if kind not in entries}
    assert unchecked == set()
    assert set(NESTED.values()) <= set(MODEL_TYPES)


@pytest.mark.parametrize(
    ("config", "parameters"), PUBLISHED, ids=[config["model_type"] for config, _ in PUBLISHED]
)
def test_a_type_that_transformers_lacks_has_its_published_count(
    config: dict[str, Any], parameters: int
) -> None:
    """Their sizes and counts as published with the checkpoints (recalled)."""
    assert count_parameters(read(config)).total == parameters


@pytest.mark.parametrize("model_type", GOLDEN["defaults"])
def test_absent_keys_mean_the_defaults_of_the_class(model_type: str) -> None:
    """Ties, KV heads, head width, windows: as the model's own configuration class has them."""
    defaults = GOLDEN["defaults"][model_type]
    config = {**LLAMA, "model_type": model_type, "num_attention_heads": 64, "hidden_size": 640}
    if model_type == "deepseek_v2":
        config["num_experts_per_tok"] = 6  # the class has none
    model = read(config, num_key_value_heads=..., intermediate_size_mlp=99, num_hidden_layers=60)
    assert model.tied_embeddings is defaults["tie_word_embeddings"]
    assert model.rotary is defaults["rotary"]
    assert (model.norm == "rms") is all("LayerNorm" not in norm for norm in defaults["norm"])
    if "num_key_value_heads" in defaults and model.latent is None:
        assert model.kv_heads == (defaults["num_key_value_heads"] or 64)
    if model.latent is None:
        assert model.head_dim == (defaults.get("head_dim") or 10)
    window = defaults.get("attention_chunk_size", defaults.get("sliding_window"))
    switched_off = "use_sliding_window" in defaults
    assert set(windows(model)) - {None} == ({window} - {None} if not switched_off else set())
    if switched_off:
        on = windows(read(config, num_hidden_layers=60, use_sliding_window=True))
        full = {"qwen2": 28, "qwen3": 28, "qwen2_moe": 46, "qwen3_moe": 0}[model_type]
        assert on == Counter({None: full, 4096: 60 - full})


@pytest.mark.parametrize(
    "model_type",
    [name for name, defaults in GOLDEN["defaults"].items() if "num_experts_per_tok" in defaults],
)
def test_absent_experts_mean_the_defaults_of_the_class(model_type: str) -> None:
    """How many, how many for a token, how wide, how many shared, and in which layers."""
    defaults = GOLDEN["defaults"][model_type]
    config = {**LLAMA, "model_type": model_type, "intermediate_size_mlp": 99}
    if defaults["num_experts_per_tok"] is None:
        assert "num_experts_per_tok is missing" in complaint(config)
        config["num_experts_per_tok"] = 6
    model = read(config, num_hidden_layers=10)
    experts = model.experts
    assert experts is not None
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    assert experts.count == next(defaults[name] for name in names if name in defaults)
    assert experts.per_token == (defaults["num_experts_per_tok"] or 6)
    width = defaults.get("moe_intermediate_size", 101)
    assert experts.intermediate_size == width
    shared = width * defaults.get("n_shared_experts", 0)
    if model_type == "llama4_text":
        shared = width
    shared = defaults.get("shared_expert_intermediate_size", shared)
    assert experts.shared_intermediate_size == shared
    sparse = sum(group.count for group in model.layer_groups if group.mlp == "experts")
    assert sparse == 10 - defaults.get("first_k_dense_replace", 0)


@pytest.mark.parametrize(
    ("model_type", "tied"),
    [
        *[(name, False) for name in ("llama", "mistral", "qwen2", "qwen3", "phi", "phi3")],
        *[(name, True) for name in ("gemma", "gemma2", "gemma3_text", "starcoder2", "cohere")],
    ],
)
def test_an_absent_tie_word_embeddings_means_the_class_default(
    model_type: str, *, tied: bool
) -> None:
    """Half a vocabulary hangs on it; a key that is there decides."""
    assert read(LLAMA, model_type=model_type).tied_embeddings is tied
    assert read(LLAMA, model_type=model_type, tie_word_embeddings=True).tied_embeddings
    assert not read(LLAMA, model_type=model_type, tie_word_embeddings=False).tied_embeddings


@pytest.mark.parametrize(
    ("model_type", "kv_heads"),
    [
        *[("llama", 32), ("phi3", 32), ("granite", 32), ("olmo2", 32)],
        *[("mistral", 8), ("mixtral", 8), ("qwen2", 32), ("qwen3", 32), ("qwen3_moe", 4)],
        *[("gemma", 16), ("gemma2", 4), ("gemma3_text", 4), ("starcoder2", 2), ("gpt_oss", 8)],
    ],
)
def test_absent_kv_heads_mean_the_class_default(model_type: str, kv_heads: int) -> None:
    """Mistral's class has 8, Llama's as many as heads; a null is as many as heads for all."""
    config = {**LLAMA, "model_type": model_type, "num_attention_heads": 32, "hidden_size": 512}
    assert read(config, num_key_value_heads=...).kv_heads == kv_heads
    assert read(config, num_key_value_heads=None).kv_heads == 32
    assert read(config, num_key_value_heads=16).kv_heads == 16


@pytest.mark.parametrize(
    ("model_type", "head_dim"),
    [("llama", 16), ("qwen2", 16), ("qwen3", 128), ("gemma2", 256), ("gpt_oss", 64)],
)
def test_an_absent_head_dim_means_the_class_default(model_type: str, head_dim: int) -> None:
    """Qwen3, Gemma and gpt-oss have their own, others hidden size / heads."""
    assert read(LLAMA, model_type=model_type).head_dim == head_dim
    assert read(LLAMA, model_type=model_type, head_dim=20).head_dim == 20
    assert read(LLAMA, model_type=model_type, head_dim=None).head_dim == 16


@pytest.mark.parametrize(
    ("model_type", "window"),
    [("llama", None), ("mistral", 4096), ("mixtral", None), ("phi3", None), ("starcoder2", None)],
)
def test_an_absent_sliding_window_means_the_class_default(
    model_type: str, window: int | None
) -> None:
    """Mistral's class has 4096; null means none for all."""
    assert windows(read(LLAMA, model_type=model_type)) == {window: 4}
    assert windows(read(LLAMA, model_type=model_type, sliding_window=None)) == {None: 4}


@pytest.mark.parametrize("model_type", ["mistral", "mixtral", "phi3", "starcoder2"])
def test_a_sliding_window_holds_in_every_layer(model_type: str) -> None:
    """These families know no mix of layers."""
    assert windows(read(LLAMA, model_type=model_type, sliding_window=50)) == {50: 4}


@pytest.mark.parametrize("model_type", ["qwen2", "qwen2_moe", "qwen3", "qwen3_moe"])
def test_qwen_ignores_a_window_that_is_not_switched_on(model_type: str) -> None:
    """Qwen2.5's files have sliding_window 131072 and use_sliding_window false."""
    config = {**LLAMA, **MIXTURE, "model_type": model_type, "sliding_window": 50}
    assert windows(read(config, use_sliding_window=False)) == {None: 4}
    assert windows(read(config, max_window_layers=1)) == {None: 4}


def test_qwen_has_windows_past_max_window_layers() -> None:
    """Three full layers, then windowed ones; without the key the first 28 layers are full."""
    config = {**LLAMA, "model_type": "qwen2", "use_sliding_window": True, "sliding_window": 50}
    assert windows(read(config, max_window_layers=3)) == {None: 3, 50: 1}
    assert windows(read(config, num_hidden_layers=30)) == {None: 28, 50: 2}


@pytest.mark.parametrize(
    ("model_type", "layers", "expected"),
    [
        ("gemma2", 7, {4096: 4, None: 3}),
        ("gemma3_text", 13, {4096: 11, None: 2}),
        ("gpt_oss", 7, {128: 4, None: 3}),
        ("llama4_text", 9, {8192: 7, None: 2}),
    ],
)
def test_local_and_global_layers_alternate_by_class_default(
    model_type: str, layers: int, expected: dict[int | None, int]
) -> None:
    """Full is every 2nd layer of Gemma 2 and gpt-oss, 6th of Gemma 3 and 4th of Llama 4."""
    model = read(LLAMA, model_type=model_type, num_hidden_layers=layers, intermediate_size_mlp=99)
    assert windows(model) == expected


@given(
    kinds=st.lists(
        st.sampled_from(["full_attention", "sliding_attention"]), min_size=1, max_size=40
    )
)
def test_layer_types_of_the_file_decide(kinds: list[str]) -> None:
    """Whatever the pattern, as many layers are windowed as the file says."""
    model = read(LLAMA, model_type="gemma2", num_hidden_layers=len(kinds), layer_types=kinds)
    assert windows(model) == Counter(None if kind == "full_attention" else 4096 for kind in kinds)
    assert len(model.layer_groups) == len(set(kinds))


def test_equal_layers_are_merged_and_different_ones_are_not() -> None:
    """Llama 4 with experts in every second layer has three kinds of layers."""
    model = read(
        LLAMA,
        model_type="llama4_text",
        num_hidden_layers=8,
        intermediate_size_mlp=99,
        interleave_moe_layer_step=2,
        attention_chunk_size=50,
    )
    kinds = {(group.chunk, group.mlp): group.count for group in model.layer_groups}
    assert kinds == {(50, "dense"): 4, (50, "experts"): 2, (None, "experts"): 2}


@pytest.mark.parametrize(
    "keys",
    [
        {"torch_dtype": "float16"},
        {"dtype": "float16"},
        {"dtype": "torch.float16"},
        {"torch_dtype": None, "dtype": "half"},
    ],
)
def test_both_spellings_of_the_dtype_are_read(keys: dict[str, Any]) -> None:
    """transformers 5 writes dtype, older ones torch_dtype; without either it is bf16."""
    assert read(LLAMA, **keys).weights.name == "fp16"
    assert read(LLAMA).weights.name == "bf16"


def test_rotary_parameters_may_be_spelled_either_way() -> None:
    """They change no cost: old and new files of one model give one shape."""
    old = read(LLAMA, rope_theta=5e5, rope_scaling={"factor": 8.0, "rope_type": "llama3"})
    new = read(LLAMA, rope_parameters={"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0})
    assert old == new == read(LLAMA)


def test_latent_attention_is_not_read_as_128_heads() -> None:
    """DeepSeek-V3's num_key_value_heads 128 is not what it caches: 576 values, 57 times fewer."""
    model = read(LATENT, num_attention_heads=128, num_key_value_heads=128, hidden_size=7168)
    assert model.cache_width == 576
    assert round(2 * 128 * 128 / model.cache_width) == 57


@pytest.mark.parametrize(
    ("model_type", "keys"),
    [
        ("mixtral", {"num_local_experts": 7, "intermediate_size": 23}),
        ("qwen3_moe", {"num_experts": 7, "moe_intermediate_size": 23}),
        ("deepseek_v2", {"n_routed_experts": 7, "moe_intermediate_size": 23}),
        ("gpt_oss", {"num_local_experts": 7, "intermediate_size": 23, "experts_per_token": 3}),
    ],
)
def test_experts_go_by_four_names(model_type: str, keys: dict[str, int]) -> None:
    """Each family's own keys lead to the same seven experts of width 23, three for each token."""
    config = {**LLAMA, "model_type": model_type, **keys}
    if "experts_per_token" not in keys:
        config["num_experts_per_tok"] = 3
    experts = read(config).experts
    assert experts is not None
    assert (experts.count, experts.per_token, experts.intermediate_size) == (7, 3, 23)


def test_absent_shared_experts_and_zero_ones_differ() -> None:
    """A null is no shared expert; an absent key is the class default."""
    for key, config in (
        ("n_shared_experts", {**LATENT, "moe_intermediate_size": 23}),
        ("shared_expert_intermediate_size", {**LLAMA, **MIXTURE, "model_type": "qwen2_moe"}),
    ):
        shared = []
        for value in (None, 0, 3):
            experts = read(config, **{key: value}).experts
            assert experts is not None
            shared.append(experts.shared_intermediate_size)
        assert shared == [0, 0, 3 * (23 if key == "n_shared_experts" else 1)]


def test_the_dense_width_does_not_matter_where_every_layer_has_experts() -> None:
    """Some files of pure mixtures leave intermediate_size out; a dense layer needs it."""
    config = {**LLAMA, **MIXTURE, "model_type": "qwen3_moe"}
    assert read(config, intermediate_size=...).intermediate_size == 0
    assert "intermediate_size is missing" in complaint(
        config, intermediate_size=..., decoder_sparse_step=2
    )


@pytest.mark.parametrize(
    ("model_type", "key"),
    [
        ("llama", "num_key_value_heads"),
        ("llama", "head_dim"),
        ("llama", "max_position_embeddings"),
        ("deepseek_v3", "q_lora_rank"),
    ],
)
def test_one_is_the_least_of_a_size_that_may_be_null(model_type: str, key: str) -> None:
    """One is accepted, zero refused, null read as its own."""
    config = {**LATENT, "model_type": model_type}
    assert read(config, **{key: 1})
    assert read(config, **{key: None})
    assert f"{key} = 0 must be at least 1" in complaint(config, **{key: 0})


def test_dense_layers_among_sparse_ones_are_counted() -> None:
    """DeepSeek starts dense, Qwen has every n-th layer sparse and may name dense ones."""
    deepseek = read(LATENT, num_hidden_layers=10, first_k_dense_replace=3)
    assert {group.mlp: group.count for group in deepseek.layer_groups} == {"dense": 3, "experts": 7}
    qwen = {**LLAMA, **MIXTURE, "model_type": "qwen3_moe", "num_hidden_layers": 12}
    stepped = read(qwen, decoder_sparse_step=3, mlp_only_layers=[5])
    assert {group.mlp: group.count for group in stepped.layer_groups} == {"dense": 9, "experts": 3}
    dense = read(qwen, num_experts=0)
    assert dense.experts is None


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block"),
        ({"quant_method": "fbgemm_fp8"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, "int8"),
        ({"load_in_8bit": True}, "int8"),
        ({"quant_method": "eetq"}, "int8"),
        ({"quant_method": "modelopt_fp8"}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_algo": "FP8"}, "fp8"),
        *[
            (
                {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"group_0": {"weights": {"num_bits": bits, "type": kind}}},
                },
                dtype,
            )
            for bits, kind, dtype in [(8, "float", "fp8"), (8, "int", "int8"), (4, "int", "int4")]
        ],
    ],
)
def test_quantization_sets_the_format_of_the_weights(
    quantization: dict[str, Any], dtype: str
) -> None:
    """Activations have 16 bits; a note says what the file is."""
    model = read(LLAMA, torch_dtype="float16", quantization_config=quantization)
    assert (str(model.weights), model.weights.base) == (dtype, "bf16")
    assert any("scales counted" in note for note in model.notes)


@pytest.mark.parametrize(
    "quantization", [{"quant_method": "spqr"}, {"quant_method": "gptq", "bits": "four"}, {}]
)
def test_an_unknown_quantization_keeps_the_dtype_and_says_so(quantization: dict[str, Any]) -> None:
    """A guess would be worse than the file's own word."""
    model = read(LLAMA, torch_dtype="float16", quantization_config=quantization)
    assert model.weights.name == "fp16"
    assert "not known" in model.notes[0]


def test_no_quantization_leaves_no_note() -> None:
    """A plain file needs no remark."""
    assert read(LLAMA, quantization_config=None).notes == ()


@pytest.mark.parametrize(
    ("keys", "kv_heads"),
    [
        ({}, 1),
        ({"num_kv_heads": 6}, 1),
        ({"multi_query": False}, 6),
        ({"multi_query": False, "num_kv_heads": 2}, 6),
        ({"new_decoder_architecture": True, "num_kv_heads": 2}, 2),
        ({"new_decoder_architecture": True}, 6),
    ],
)
def test_falcon_counts_its_kv_heads_in_the_new_architecture_only(
    keys: dict[str, Any], kv_heads: int
) -> None:
    """Falcon-7B's file says num_kv_heads 71 and means one."""
    config = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    assert read(config, model_type="falcon", **keys).kv_heads == kv_heads


def test_the_decoder_of_a_multimodal_file_is_read_with_class_defaults() -> None:
    """Gemma 3's text_config holds differences only: heads and vocabulary are the class's."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    config = {
        "model_type": "gemma3",
        "text_config": {**text, "model_type": "gemma3_text", "sliding_window": 1024},
        "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
        "torch_dtype": "float16",
        "quantization_config": {"quant_method": "gptq", "bits": 4},
    }
    model = read(config)
    assert (model.heads, model.kv_heads, model.head_dim, model.vocab_size) == (8, 4, 256, 262_208)
    assert windows(model) == {1024: 29, None: 5}
    assert str(model.weights) == "int4"
    assert any("the vision tower, about" in note for note in model.notes)
    # google/gemma-3-4b-it's files hold 4,300,079,472 parameters (recalled); the vision tower and
    # its projector, counted by hand, are the rest.
    assert count_parameters(model).total == 4_300_079_472 - 416_866_032 - 2_950_272


def test_a_text_config_need_not_name_its_type() -> None:
    """The outer type tells which decoder it is."""
    text = {**LLAMA, "intermediate_size_mlp": 99}
    named = read({"model_type": "llama4", "text_config": {**text, "model_type": "llama4_text"}})
    del text["model_type"]
    assert read({"model_type": "llama4", "text_config": text}) == named


def test_a_multimodal_file_may_be_flat_or_nested_more_than_once() -> None:
    """Qwen2.5-VL's older files are flat; Qwen3-Omni's thinker has a text_config of its own."""
    flat = read(LLAMA, model_type="qwen2_5_vl")
    assert flat.qkv_bias
    nested = read({"model_type": "qwen2_5_vl", "text_config": LLAMA | {"model_type": "qwen2"}})
    assert count_parameters(flat) == count_parameters(nested)
    thinker = {**LLAMA, **MIXTURE, "model_type": "qwen3_omni_moe_text"}
    omni = {
        "model_type": "qwen3_omni_moe",
        "thinker_config": {"text_config": thinker},
        "talker_config": {"text_config": {"num_hidden_layers": 99}},
    }
    alone = read(thinker, model_type="qwen3_moe")
    assert count_parameters(read(omni)) == count_parameters(alone)


def test_layers_for_multi_token_prediction_are_beside_the_model() -> None:
    """Each is a layer of the last kind, a matrix [2 d, d] and three norms."""
    d, experts = 96, 8
    keys = {**LATENT, "n_shared_experts": 1, "moe_intermediate_size": 23, "kv_lora_rank": 32}
    keys |= {"q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
    model, plain = read(keys, num_nextn_predict_layers=2), read(keys)
    attention = d * 6 * 12 + d * 36 + 32 * 6 * 16 + 6 * 8 * d
    layer = attention + 9 * 3 * d * 23 + experts * d + 2 * d + 32
    drafts = sum(layers * matrix.values for layers, matrix in draft_matrices(model))
    assert drafts == 2 * (layer + 2 * d * d + 3 * d)
    assert count_parameters(model) == count_parameters(plain)
    assert draft_matrices(plain) == []
    assert any("multi-token prediction (2)" in note for note in model.notes)


@pytest.mark.parametrize(
    "keys",
    [
        {"architectures": ["LlamaForCausalLMEagle3"]},
        {"architectures": ["DFlashDraftModel"]},
        {"draft_vocab_size": 100},
        {"eagle_config": {}},
    ],
)
def test_a_draft_is_recognised(keys: dict[str, Any]) -> None:
    """By the name of its class or by its keys; a plain model is none."""
    assert any("a draft for speculative decoding" in note for note in read({**LLAMA, **keys}).notes)
    assert not read(LLAMA, architectures=["LlamaForCausalLM"]).notes


def test_one_number_for_every_layer_is_that_number() -> None:
    """Hunyuan's moe_topk is a list; layers that differ are refused by their value."""
    hunyuan = {**LLAMA, "model_type": "hunyuan_v1_moe", "num_experts": 8}
    experts = read(hunyuan, moe_topk=[3] * 4).experts
    assert experts is not None
    assert experts.per_token == 3
    assert "moe_topk = [3, 3, 3, 2] must be a whole number" in complaint(
        hunyuan, moe_topk=[3, 3, 3, 2]
    )


@pytest.mark.parametrize(("gating", "columns"), [(True, 1), ("per-head", 1), ("per-element", 16)])
def test_a_gate_on_the_attention_is_one_more_matrix(gating: bool | str, columns: int) -> None:
    """Laguna's has a column for each head or for each of its values; a step multiplies it."""
    heads = [6, 4, 6, 2]
    keys = {**LLAMA, **MIXTURE, "model_type": "laguna", "head_dim": 16, "gating": gating}
    model = read(keys, num_attention_heads_per_layer=heads, vocab_size=1)
    gates = [
        product.inner * product.columns * group.count
        for group in model.layer_groups
        for product in group.products
    ]
    assert sum(gates) == 96 * sum(heads) * columns
    operations = decode_operations(model, Setup(), Workload(samples=1), resident_blocks=1)
    flops = sum(
        operation.repeat * operation.flops
        for operation in operations
        if operation.name.startswith("attention_gate")
    )
    assert flops == 2 * sum(gates)


def test_a_third_norm_of_sparse_layers_is_an_operation() -> None:
    """A.X K1: two norms in its dense first layer, three in the others."""
    config = {**LATENT, "model_type": "axk1", "n_shared_experts": 1, "moe_intermediate_size": 23}
    operations = decode_operations(read(config), Setup(), Workload(), resident_blocks=1)
    third = [operation for operation in operations if operation.name == "attention_post_norm"]
    assert [operation.repeat for operation in third] == [3]


@pytest.mark.parametrize("outer", [True, False])
def test_tied_embeddings_may_stand_outside_the_text_config(*, outer: bool) -> None:
    """The outer key wins, as transformers has it, then the inner, then the class default."""
    config = {"model_type": "llava", "text_config": LLAMA, "tie_word_embeddings": outer}
    assert read(config).tied_embeddings is outer
    inner = {**LLAMA, "tie_word_embeddings": not outer}
    assert read({**config, "text_config": inner}).tied_embeddings is outer
    assert read({"model_type": "llava", "text_config": inner}).tied_embeddings is not outer


def test_an_unknown_type_is_answered_with_the_way_out() -> None:
    """The message names the file, the type, a type that reads its keys, and how to list all."""
    message = complaint(LLAMA, model_type="gpt_2")
    assert "unknown model_type 'gpt_2'" in message
    assert "--assume llama" in message
    assert "'bifurcate models types'" in message
    assert "bloom" not in message


def test_an_unknown_type_can_be_assumed_to_be_a_known_one() -> None:
    """The shape is the assumed type's, and a note says so."""
    config = {**LLAMA, "model_type": "brand_new"}
    model = shape_from_config(config, name="tiny", where="config.json", assume="llama")
    assert count_parameters(model) == count_parameters(read(LLAMA))
    assert "brand_new" in model.notes[0]
    with pytest.raises(ModelError, match="unknown model_type 'lama'; did you mean 'llama'"):
        shape_from_config(config, name="tiny", where="config.json", assume="lama")


def test_a_file_without_a_type_can_be_assumed_too() -> None:
    """Without --assume the message names it, if the file looks like a config at all."""
    config = {key: value for key, value in LLAMA.items() if key != "model_type"}
    assert "--assume llama" in complaint(config)
    model = shape_from_config(config, name="tiny", where="config.json", assume="qwen2")
    assert model.qkv_bias


@pytest.mark.parametrize("content", [[], [LLAMA], "llama", 7, None])
def test_what_is_not_an_object_is_not_a_config(content: Any) -> None:
    """A list, a text or a number is refused as such."""
    assert "not a model's config.json" in complaint(content)


def test_a_tokenizer_config_is_not_a_config() -> None:
    """It has no model_type, and no sizes that --assume could help with."""
    message = complaint({"tokenizer_class": "LlamaTokenizer", "model_max_length": 4096})
    assert "not a model's config.json" in message
    assert "--assume" not in message


@pytest.mark.parametrize(
    "key",
    [
        *["num_hidden_layers", "hidden_size", "num_attention_heads"],
        *["intermediate_size", "vocab_size"],
    ],
)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (..., "is missing"),
        (None, "is missing"),
        (0, "= 0 must be at least 1"),
        (-3, "= -3 must be at least 1"),
        (2.5, "= 2.5 must be a whole number"),
        ("96", "= '96' must be a whole number"),
        (True, "= True must be a whole number"),
        ([96], "= [96] must be a whole number"),
        (10**30, "is larger than any model's"),
    ],
)
def test_a_bad_size_is_named_with_its_value(key: str, value: Any, words: str) -> None:
    """One line: the file, the key, the value and what is wrong with it."""
    message = complaint(LLAMA, **{key: value})
    assert message.startswith(f"config.json: {key} ")
    assert words in message


def test_a_mistyped_key_is_guessed() -> None:
    """A missing key beside one that looks like it."""
    message = complaint(LLAMA, hidden_size=..., hiden_size=96)
    assert message == "config.json: hidden_size is missing; is 'hiden_size' a misspelling of it?"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_key_value_heads": 4}, "kv_heads can be 1, 2, 3, 6"),
        ({"hidden_size": 97}, "hidden_size = 97 is not a multiple of num_attention_heads = 6"),
        ({"attention_bias": "yes"}, "attention_bias = 'yes' must be true or false"),
        ({"layer_types": "full_attention"}, "layer_types = 'full_attention' must be a list"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types has 3 entries for 4 layers"),
        (
            {"layer_types": ["full_attention"] * 3 + ["linear_attention"]},
            "layer_types has 'linear_attention'",
        ),
        ({"torch_dtype": 16}, "torch_dtype = 16 must be a name"),
        ({"quantization_config": "awq"}, "quantization_config = 'awq' must be an object"),
        ({"model_type": "gemma3"}, "needs a text_config"),
        ({"model_type": "deepseek_v2"}, "num_experts_per_tok is missing"),
        ({"model_type": "llama4_text"}, "intermediate_size_mlp"),
    ],
)
def test_what_does_not_fit_together_is_one_clear_line(changes: dict[str, Any], words: str) -> None:
    """Heads, switches, lists, formats: the message names the key and the value."""
    if changes.get("model_type") == "llama4_text":
        changes = {**changes, "interleave_moe_layer_step": 2}
    assert words in complaint(LLAMA, **changes)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4)
    ),
    max_leaves=8,
)


@given(data=st.data())
def test_any_value_of_any_key_gives_a_shape_or_one_clear_line(data: st.DataObject) -> None:
    """However a file is broken, the user sees a line that starts with its name, not a traceback."""
    config = dict(data.draw(st.sampled_from(CASES))["config"])
    keys = [*config, "layer_types", "quantization_config", "torch_dtype", "text_config"]
    config[data.draw(st.sampled_from(keys))] = data.draw(JSON_VALUES)
    message = ""
    try:
        read(config)
    except ModelError as error:
        message = str(error)
    assert message.startswith("config.json" if message else "")
    assert "\n" not in message
