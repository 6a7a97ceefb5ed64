"""Parameter counts, to the last one, against module lists written by hand and published figures."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.presets import load_model

Shapes = list[tuple[int, ...]]

# The tensors of published checkpoints, as their files list them.
LLAMA_2_7B: Shapes = [
    *[
        *4 * [(4096, 4096)],  # q_proj, k_proj, v_proj, o_proj
        *2 * [(11008, 4096)],  # gate_proj, up_proj
        (4096, 11008),  # down_proj
        *2 * [(4096,)],  # input_layernorm, post_attention_layernorm
    ]
    * 32,
    (32000, 4096),  # embed_tokens
    (4096,),  # norm
    (32000, 4096),  # lm_head
]
GPT2: Shapes = [
    *[
        *4 * [(768,)],  # ln_1, ln_2: weight and bias
        *[(768, 2304), (2304,)],  # c_attn
        *[(768, 768), (768,)],  # c_proj
        *[(768, 3072), (3072,)],  # c_fc
        *[(3072, 768), (768,)],  # c_proj of the MLP
    ]
    * 12,
    (50257, 768),  # wte, the output matrix too
    (1024, 768),  # wpe
    *2 * [(768,)],  # ln_f
]
MIXTRAL: Shapes = [
    *[
        *2 * [(4096, 4096)],  # q_proj, o_proj
        *2 * [(1024, 4096)],  # k_proj, v_proj
        (8, 4096),  # gate
        *8 * [(14336, 4096), (14336, 4096), (4096, 14336)],  # w1, w3, w2 of each expert
        *2 * [(4096,)],
    ]
    * 32,
    *2 * [(32000, 4096)],
    (4096,),
]
_DEEPSEEK_ATTENTION: Shapes = [
    *[(1536, 7168), (1536,), (24576, 1536)],  # q_a_proj, q_a_layernorm, q_b_proj
    *[(576, 7168), (512,), (32768, 512)],  # kv_a_proj_with_mqa, kv_a_layernorm, kv_b_proj
    (7168, 16384),  # o_proj
    *2 * [(7168,)],
]
DEEPSEEK_V3: Shapes = [
    *[*_DEEPSEEK_ATTENTION, (18432, 7168), (18432, 7168), (7168, 18432)] * 3,
    *[
        *_DEEPSEEK_ATTENTION,
        *257 * [(2048, 7168), (2048, 7168), (7168, 2048)],  # 256 experts and a shared one
        (256, 7168),  # gate; e_score_correction_bias is a buffer, not a parameter
    ]
    * 58,
    *2 * [(129280, 7168)],
    (7168,),
]


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("llama-2-7b", LLAMA_2_7B),
        ("gpt2", GPT2),
        ("mixtral-8x7b", MIXTRAL),
        ("deepseek-v3", DEEPSEEK_V3),
    ],
)
def test_the_count_is_that_of_the_checkpoint(name: str, tensors: Shapes) -> None:
    """The tensors of the published file hold as many numbers as we count."""
    assert count_parameters(load_model(name)).total == sum(prod(tensor) for tensor in tensors)


@pytest.mark.parametrize(
    ("name", "active"),
    [
        ("mixtral-8x7b", 12.9e9),
        ("qwen3-30b-a3b", 3.3e9),
        ("qwen3-235b-a22b", 22e9),
        ("deepseek-v3", 37e9),
        ("llama-4-scout", 17e9),
        ("kimi-k2", 32e9),
    ],
)
def test_active_parameters_are_the_published_ones(name: str, active: float) -> None:
    """Model cards give them to two or three digits."""
    assert count_parameters(load_model(name)).active == pytest.approx(active, rel=0.03)


def test_gpt_oss_counts_its_active_parameters_without_the_token_table() -> None:
    """OpenAI's card gives 3.61 billion active for the 20b model, its token table left out."""
    count = count_parameters(load_model("gpt-oss-20b"))
    assert count.active - count.embedding == pytest.approx(3.61e9, rel=0.002)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "gpt2", "falcon-7b"])
def test_a_dense_model_uses_all_its_parameters(name: str) -> None:
    """Nothing is idle where there are no experts."""
    count = count_parameters(load_model(name))
    assert count.active == count.total


@pytest.mark.parametrize("size", ["1b", "7b"])
@pytest.mark.parametrize("family", ["mha", "mg", "mqa"])
def test_the_papers_families_follow_the_authors_formula(size: str, family: str) -> None:
    """Attention (d+1)(2d + 2gk), MLP 4d(d+1) + 4d^2 + d, norms 4d + 2d, tables (V+1)d + n d.

    Source: benathi/megatron-lm-multigroup, utils/params_calc.py.
    """
    model = load_model(f"paper-{size}-{family}")
    d, g, k = model.hidden_size, model.kv_heads, model.head_dim
    attention = (d + 1) * (2 * d + 2 * g * k)
    if family == "mha":
        assert attention == 4 * (d + 1) * d
    feed_forward = 4 * d * (d + 1) + 4 * d**2 + d
    tables = model.vocab_size * d + 2048 * d
    total = model.layers * (attention + feed_forward + 4 * d) + 2 * d + tables
    assert count_parameters(model).total == total


def test_tying_saves_one_token_table() -> None:
    """An absent tie_word_embeddings read wrongly is an error of vocabulary x hidden size."""
    tied = load_model("qwen2.5-0.5b")
    untied = load_model("qwen2.5-0.5b", tied_embeddings=False)
    assert tied.tied_embeddings
    difference = count_parameters(untied).total - count_parameters(tied).total
    assert difference == 151_936 * 896


@given(
    layers=st.integers(1, 100),
    kv_heads=st.sampled_from([1, 2, 4, 8]),
    gated=st.booleans(),
    bias=st.booleans(),
    tied=st.booleans(),
)
def test_each_kv_head_adds_its_columns_of_keys_and_values(
    *, layers: int, kv_heads: int, gated: bool, bias: bool, tied: bool
) -> None:
    """Two columns of the hidden size for each unit of width, and their biases; nothing else."""
    fields = {
        "name": "small",
        "layers": layers,
        "hidden_size": 96,
        "heads": 8,
        "head_dim": 20,
        "intermediate_size": 111,
        "vocab_size": 500,
        "gated_mlp": gated,
        "qkv_bias": bias,
        "tied_embeddings": tied,
    }
    one = count_parameters(ModelShape.read({**fields, "kv_heads": 1}))
    more = count_parameters(ModelShape.read({**fields, "kv_heads": kv_heads}))
    columns = layers * (kv_heads - 1) * 2 * 20
    assert more.total - one.total == columns * (97 if bias else 96)
    assert more.mlp == one.mlp
