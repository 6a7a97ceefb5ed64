"""A step of several query tokens, and one over a prefix tree, worked by hand.

The model is that of test_golden_step: L = 2 layers, d = 8, h = 4 heads in g = 2 groups of width
k = 2, gated MLP of 16, vocabulary of 32, bf16.
"""

import pytest
from builders import by_name, llama_2_7b, mistral_7b, mixtral_8x7b, model, step_operations

from simulator.counts.memory import kv_cache_bytes, memory
from simulator.counts.operation import total
from simulator.counts.transformer import prefill_operations
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

Figures = tuple[float, float, float, float, int]

# b = 2 samples of m_c = 4 context tokens with m_d = 3 own tokens each, n = 2 of them new: T = 4
# tokens, so a row of all tokens is 4 x 2 = 8 bytes per value.
AROUND: dict[str, Figures] = {
    # four rows of 8 (64) and four int64 ids (32)
    "embedding": (0, 64 + 32, 64, 1, 1),
    # input and residual (2 x 64) and the weights (16)
    "attention_norm": (0, 128 + 16, 128, 1, 2),
    # 2 x 4 tokens x 8 x 16 FLOPs; the weights, 256 bytes, still once
    "qkv_projection": (1024, 64 + 256, 128, 1, 2),
    "rotary": (0, 96, 96, 1, 2),
    # keys 4 and values 4 of all four tokens
    "kv_write": (0, 64, 64, 1, 2),
    "output_projection": (512, 64 + 128, 64, 1, 2),
    "mlp_norm": (0, 128 + 16, 128, 1, 2),
    "mlp_up": (2048, 64 + 512, 256, 1, 2),
    "mlp_activation": (0, 256, 128, 1, 2),
    "mlp_down": (1024, 128 + 256, 64, 1, 2),
    "final_norm": (0, 128 + 16, 128, 1, 1),
    # logits of every new token: a step must judge them all
    "lm_head": (2048, 64 + 512, 256, 1, 1),
    "sampling": (0, 256 + 512, 512 + 32, 2, 1),
}
STANDARD: dict[str, Figures] = {
    # 2 x 2 x 4 = 16 query rows: 64 bytes of queries and of outputs. K and V of 2 x 7 tokens are
    # still 224 bytes. FLOPs 16 rows x 7 keys x 2 wide x 2 products x 2: the pair that the causal
    # mask hides (the first new token and the second's key) is computed within its tile.
    "attention": (896, 64 + 224, 64, 1, 2),
    "attention_combine": (0, 0, 0, 0, 2),
}
BIFURCATED: dict[str, Figures] = {
    # context K and V once, 64 bytes; outputs with a log-sum-exp of 4 bytes a row
    "attention_context": (512, 64 + 64, 64 + 64, 1, 2),
    "attention_context_combine": (0, 0, 0, 0, 2),
    "attention_suffix": (384, 64 + 96, 64 + 64, 1, 2),
    "attention_suffix_combine": (0, 0, 0, 0, 2),
    "attention_merge": (0, 2 * (64 + 64), 64, 1, 2),
}
WORK = {"samples": 2, "context_tokens": 4, "decoded_tokens": 3, "query_tokens": 2}


def counted(**work: object) -> dict[str, Figures]:
    """Count the tiny model's step, by operation."""
    return {
        name: (each.flops, each.bytes_read, each.bytes_written, each.launches, each.repeat)
        for name, each in by_name(step_operations(model(), **work)).items()
    }


@pytest.mark.parametrize(
    ("attention", "inside"), [("standard", STANDARD), ("bifurcated", BIFURCATED)]
)
def test_a_step_of_two_tokens_by_hand(attention: str, inside: dict[str, Figures]) -> None:
    """Every operation: n multiplies FLOPs and activations, never weights or the cache."""
    assert counted(attention=attention, **WORK) == {**AROUND, **inside}


def test_a_step_over_a_tree_by_hand() -> None:
    """Three levels of reading: a root for all, two problems, and each sample's own tokens.

    A root of 4 tokens, below it 2 problems of 3 tokens, 2 samples each with 1 own token: 4
    sequences, 16 query rows, 64 bytes of queries and outputs. A token's K and V are 16 bytes.
    """
    tree = counted(tree="root=4,problem=3x2", samples=2, decoded_tokens=1, attention="bifurcated")
    inside = {name: figures for name, figures in tree.items() if name not in AROUND}
    assert inside == {
        # 16 rows x 4 keys x 2 wide x 2 products x 2 FLOPs; 4 tokens read once
        "attention_level_1": (512, 64 + 64, 64 + 64, 1, 2),
        "attention_level_1_combine": (0, 0, 0, 0, 2),
        # 2 nodes x 3 tokens
        "attention_level_2": (384, 64 + 96, 64 + 64, 1, 2),
        "attention_level_2_combine": (0, 0, 0, 0, 2),
        # 4 sequences x 1 token
        "attention_suffix": (128, 64 + 64, 64 + 64, 1, 2),
        "attention_suffix_combine": (0, 0, 0, 0, 2),
        # three partial outputs with their log-sum-exps in one pass
        "attention_merge": (0, 3 * (64 + 64), 64, 1, 2),
    }
    joined = counted(tree="root=4+problem=3x2", samples=2, decoded_tokens=1, attention="bifurcated")
    # Each problem reads root and problem: 2 x 7 tokens.
    assert joined["attention_context"] == (896, 64 + 224, 64 + 64, 1, 2)
    assert joined["attention_suffix"] == tree["attention_suffix"]
    assert joined["attention_merge"] == (0, 2 * (64 + 64), 64, 1, 2)
    standard = counted(tree="root=4,problem=3x2", samples=2, decoded_tokens=1)
    # 4 sequences x 8 tokens
    assert standard["attention"] == (1024, 64 + 512, 64, 1, 2)


def test_llama_2_7b_over_a_tree() -> None:
    """A system prompt of 2048, 8 problems of 512, 16 samples, 64 own tokens: 524,288 B a token."""
    token = 524_288
    tree = {"tree": "system=2K,problem=512x8", "samples": 16}

    def read(**work: object) -> float:
        return total(step_operations(llama_2_7b(), **{**tree, **work})).kv_bytes_read

    assert read() == 8 * 16 * (2048 + 512 + 64) * token == 176_093_659_136
    assert read(attention="bifurcated") == (2048 + 8 * 512 + 128 * 64) * token == 7_516_192_768
    joined = read(tree="system=2K+problem=512x8", attention="bifurcated")
    assert joined == (8 * 2560 + 128 * 64) * token == 15_032_385_536
    shots = read(tree="system=2K,problem=512x8+", attention="bifurcated")
    assert shots == (2048 + 128 * (512 + 64)) * token
    for layout, tokens in (("copies", 128 * 2624), ("shared", 2048 + 4096 + 8192)):
        setup = Setup(kv_layout=layout)
        assert kv_cache_bytes(llama_2_7b(), setup, Workload(**tree)) == tokens * token


def test_the_prefill_of_a_tree_by_hand() -> None:
    """Nodes once: 4 + 2 x 3 tokens; a problem's token sees the root and what is before it.

    Pairs: the root 4 x 5 / 2 = 10; a problem 3 x 4 above and 3 x 4 / 2 among themselves, 18 each.
    """
    work = Workload(tree="root=4,problem=3x2", samples=2)
    operations = by_name(prefill_operations(model(), Setup(attention="bifurcated"), work))
    # pairs x 4 heads x 2 wide x 2 products x 2 FLOPs
    assert operations["prefill_attention_level_1"].flops == 10 * 32
    assert operations["prefill_attention_level_2"].flops == 2 * 18 * 32
    assert operations["qkv_projection"].flops == 2 * 10 * 8 * 16
    # rows: 4 and 6 tokens x 8 wide x 2 bytes; keys and values: 4, and 2 x 7 tokens x 16 bytes
    assert operations["prefill_attention_level_1"].bytes_read == 64 + 64
    assert operations["prefill_attention_level_2"].bytes_read == 96 + 224
    # Copies: two whole prompts of 7 tokens, 28 pairs each.
    copies = by_name(prefill_operations(model(), Setup(kv_layout="copies"), work))
    assert copies["prefill_attention"].flops == 2 * 28 * 32
    assert copies["qkv_projection"].flops == 2 * 14 * 8 * 16


@pytest.mark.parametrize("n", [1, 4, 16])
@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
def test_the_paper_s_formulas_have_n(attention: str, n: int) -> None:
    """Appendix E.2 with n: products of the einsum kernel move what the paper says, n by n."""
    h, g, k, b, m_c, m_d = 32, 8, 128, 6, 900, 40
    operations = step_operations(
        mistral_7b(),
        samples=b,
        context_tokens=m_c,
        decoded_tokens=m_d,
        query_tokens=n,
        attention=attention,
        kernel="einsum",
        execution="compiled",
    )
    products = [each for each in operations if each.kind == "attention"]
    m, d = m_c + m_d, h * k
    # Section 4: 2 b n m d for <q,K>, and as much for <w,V>.
    assert sum(each.flops for each in products) == 2 * (2 * b * n * m * d)
    # E.2 in elements: queries, keys and logits of <q,K>; logits, values and outputs of <w,V>.
    cached = b * g * m * k if attention == "standard" else g * m_c * k + b * g * m_d * k
    elements = (b * h * n * k + cached + b * h * n * m) + (b * h * n * m + cached + b * n * d)
    # The two parts of bifurcated attention each touch queries and outputs; the paper counts once.
    again = 2 * b * h * n * k if attention == "bifurcated" else 0
    assert sum(each.bytes_moved for each in products) == 2 * (elements + again)


def test_experts_are_visited_by_every_query_token() -> None:
    """Mixtral, 1 sample: 4 tokens visit 8 (1 - (6/8)^4) = 5.47 of 8 experts, one visits 2."""
    read = {
        n: by_name(step_operations(mixtral_8x7b(), samples=1, query_tokens=n))["experts_up"]
        for n in (1, 4)
    }
    expert = 4096 * 2 * 14336 * 2
    assert read[1].weight_bytes_read == pytest.approx(2 * expert)
    assert read[4].weight_bytes_read == pytest.approx(8 * (1 - 0.75**4) * expert)
    assert read[4].flops == 4 * read[1].flops


def test_memory_of_query_tokens() -> None:
    """The workspace grows with n, the caches do not: new tokens are own tokens already."""
    one, four = (
        memory(
            llama_2_7b(),
            Setup(kernel="ideal", max_batched_tokens=1),
            Workload(samples=8, query_tokens=n),
            card_bytes=1e12,
            resident_blocks=264,
        )
        for n in (1, 4)
    )
    assert four.kv_bytes == one.kv_bytes
    # float32 logits and a hidden vector of each token
    assert one.workspace_bytes == 8 * (32000 * 4 + 4096 * 2)
    assert four.workspace_bytes == 4 * one.workspace_bytes


def test_intensity_of_the_context_grows_with_n() -> None:
    """FLOPs per KV byte in bf16: n h / g for standard attention, b n h / g for bifurcated."""
    for attention, reads in (("standard", 1), ("bifurcated", 16)):
        for n in (1, 4):
            operations = step_operations(
                mistral_7b(),
                samples=16,
                decoded_tokens=0,
                query_tokens=n,
                attention=attention,
                kernel="ideal",
            )
            [read] = [each for each in operations if each.kind == "attention"]
            assert read.flops / read.kv_bytes_read == reads * n * 32 / 8
