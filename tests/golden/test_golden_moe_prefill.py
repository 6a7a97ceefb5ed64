"""A mixture-of-experts MLP and a prefill, every operation worked by hand.

The model of test_golden_step.py: d = 8, h = 4, g = 2, k = 2, bf16, 2 layers, vocabulary of 32.
"""

import pytest
from builders import by_name, mistral_7b, model, step_operations, windowed

from simulator.counts.memory import workspace_bytes
from simulator.counts.operation import Operation
from simulator.counts.transformer import prefill_operations
from simulator.inputs.model import Experts
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload


def _counts(operation: Operation) -> tuple[float, ...]:
    return (
        operation.flops,
        operation.bytes_read,
        operation.bytes_written,
        operation.launches,
        operation.repeat,
    )


def test_a_mixture_of_experts_by_hand() -> None:
    """2 of 4 experts of width 6, a shared one of 10 with its gate, 3 tokens.

    Each expert is missed by a token with probability 1/2: 4 x (1 - 1/8) = 3.5 are visited, each of
    8 x 12 + 6 x 8 weights; the tokens make 3 x 2 = 6 visits.
    """
    experts = Experts(
        count=4,
        per_token=2,
        intermediate_size=6,
        shared_intermediate_size=10,
        shared_gate=True,
        router_bias=True,
    )
    named = by_name(step_operations(model(experts=experts), samples=3))
    expected = {
        # 2 x 3 x 8 x 4; reads 3 rows of 8 and 32 weights and 4 biases; writes 3 x 4, all 2 bytes
        "router": (192, 48 + 64 + 8, 24, 1, 2),
        # reads float32 scores 3 x 4; writes a weight and an index, 8 bytes, for each visit
        "expert_choice": (0, 48, 48, 2, 2),
        # reads each row once, writes it once for each visit
        "expert_gather": (0, 48, 96, 1, 2),
        # gate and up: 2 x 6 x 8 x 12; reads 6 rows of 8 and 3.5 experts' 96 weights
        "experts_up": (1152, 96 + 672, 144, 1, 2),
        "experts_activation": (0, 144, 72, 1, 2),
        # 2 x 6 x 6 x 8; 3.5 experts' 48 weights
        "experts_down": (576, 72 + 336, 96, 1, 2),
        "expert_sum": (0, 96, 48, 1, 2),
        # one column of 8 weights
        "shared_expert_gate": (48, 48 + 16, 6, 1, 2),
        # 2 x 3 x 8 x 20; 160 weights
        "shared_expert_up": (960, 48 + 320, 120, 1, 2),
        "shared_expert_activation": (0, 120, 60, 1, 2),
        # 2 x 3 x 10 x 8; 80 weights
        "shared_expert_down": (480, 60 + 160, 48, 1, 2),
    }
    assert {name: _counts(named[name]) for name in expected} == expected
    assert not [name for name in named if name.startswith("mlp_") and name != "mlp_norm"]


def test_a_prefill_by_hand() -> None:
    """2 prompts of 5 tokens for 3 samples each, which then get copies of the cache.

    10 tokens; rows of 8 take 160 bytes. Each prompt has 5 x 6 / 2 = 15 pairs, 30 together.
    """
    work = Workload(prompts=2, samples=3, context_tokens=5)
    named = by_name(prefill_operations(model(), Setup(kv_layout="copies"), work))
    expected = {
        # 10 rows and 10 int64 ids
        "embedding": (0, 160 + 80, 160, 1, 1),
        "attention_norm": (0, 2 * 160 + 16, 2 * 160, 1, 2),
        # 2 x 10 x 8 x 16; 128 weights
        "qkv_projection": (2560, 160 + 256, 320, 1, 2),
        "rotary": (0, 240, 240, 1, 2),
        "kv_write": (0, 160, 160, 1, 2),
        # 30 pairs x 4 heads x 2 wide x 2 products x 2; queries 160, K and V 160; outputs 160
        "prefill_attention": (960, 160 + 160, 160, 1, 2),
        "output_projection": (1280, 160 + 128, 160, 1, 2),
        "mlp_norm": (0, 2 * 160 + 16, 2 * 160, 1, 2),
        "mlp_up": (5120, 160 + 512, 640, 1, 2),
        "mlp_activation": (0, 640, 320, 1, 2),
        "mlp_down": (2560, 320 + 256, 160, 1, 2),
        # the last position of each prompt
        "final_norm": (0, 2 * 160 + 16, 2 * 160, 1, 1),
        "lm_head": (1024, 32 + 512, 128, 1, 1),
        "sampling": (0, 128 + 256, 256 + 16, 2, 1),
        # 10 tokens x 8 values x 2 bytes, for 3 samples; K and V
        "kv_broadcast": (0, 160, 480, 2, 2),
    }
    assert {name: _counts(operation) for name, operation in named.items()} == expected
    assert named["kv_broadcast"].kv_bytes_read == 160
    assert named["prefill_attention"].kv_bytes_read == 160


def test_only_the_window_is_copied_to_samples() -> None:
    """Gemma-2-9B, 8192 tokens: all of them in 21 layers, the last 4096 in the others."""
    setup = Setup(kv_layout="copies")
    named = by_name(prefill_operations(windowed(), setup, Workload(samples=4)))
    token = 2 * 8 * 256 * 2
    assert named["kv_broadcast"].bytes_written == 4 * 8192 * token
    assert named["kv_broadcast_windowed"].bytes_written == 4 * 4096 * token
    assert named["kv_broadcast_windowed"].repeat == 21


@pytest.mark.parametrize(
    ("kernel", "attention_bytes"),
    [
        # queries and two outputs of 16 samples x 32 heads x 128 x 2 bytes
        ("ideal", 3 * 131_072),
        # split-KV partials of 264 blocks of 64 rows of 129 float32 values
        ("flash", 3 * 131_072 + 264 * 64 * 129 * 4),
        # logits twice: 16 x 32 x 8256 x 2 bytes
        ("einsum", 3 * 131_072 + 2 * 8_454_144),
    ],
)
def test_the_workspace_of_attention_by_hand(kernel: str, attention_bytes: int) -> None:
    """Mistral-7B, 16 samples: two hidden vectors and the widest MLP tensor beside it.

    16 x 2 x (2 x 4096 + 2 x 14336) bytes; logits of 32,000 would take 16 x (4 x 32,000 + 2 x 4096).
    """
    setup = Setup(attention="bifurcated", kernel=kernel)
    hidden = 16 * 2 * (2 * 4096 + 2 * 14336)
    logits = 16 * (4 * 32_000 + 2 * 4096)
    found = workspace_bytes(mistral_7b(), setup, Workload(), resident_blocks=264)
    assert found == max(hidden + attention_bytes, logits)
