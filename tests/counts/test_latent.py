"""Latent attention in three forms, by hand: FLOPs, bytes, memory, prefill, break-even."""

from typing import Any

import pytest
from builders import asked, by_name, deepseek_v3, step_operations
from hypothesis import given
from hypothesis import strategies as st

from simulator.counts.attention.latent import mixing_pays_from
from simulator.counts.memory import kv_cache_bytes
from simulator.counts.operation import Operation, total
from simulator.counts.transformer import prefill_operations
from simulator.inputs.hardware import load_hardware
from simulator.inputs.model import LatentAttention
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

V3 = LatentAttention(kv_rank=512, rope_dim=64, nope_dim=128, value_dim=128)
K = 1024
# DeepSeek-V3's multiply-adds for each query and cached token, and cached values, in units of 1,024.
EXPANDED, ABSORBED, LATENT = 40, 136, 0.5625


def layer(**settings: Any) -> dict[str, Operation]:
    """Return the operations of DeepSeek-V3's attention in one layer."""
    listed = step_operations(deepseek_v3(), **{"attention": "bifurcated", **settings})
    kinds = ("attention", "latent_attention", "combine", "copy", "gemm")
    around = ("attention_norm", "mlp", "expert", "shared", "router", "lm_head")
    return by_name(
        [each for each in listed if each.kind in kinds and not each.name.startswith(around)]
    )


def done(**settings: Any) -> tuple[float, float]:
    """Return multiply-adds and cached values read of one layer, in units of 1,024."""
    attention = [each for each in layer(**settings).values() if "attention" in each.kind]
    flops = sum(each.flops for each in attention)
    return flops / 2 / K, sum(each.kv_bytes_read for each in attention) / 2 / K


@pytest.mark.parametrize("kernel", ["flash", "ideal"])
@pytest.mark.parametrize(("samples", "context", "own"), [(16, 8192, 64), (128, 26472, 512)])
def test_multiply_adds_and_values_are_those_of_the_table(
    kernel: str, samples: int, context: int, own: int
) -> None:
    """B of L_s shared and L_n own tokens, as TyphoonMLA counts them (arXiv:2509.21081)."""
    sizes = {"samples": samples, "context_tokens": context, "decoded_tokens": own, "kernel": kernel}
    for form, flops, values in (
        ("absorbed", ABSORBED * samples * (context + own), LATENT * (context + samples * own)),
        ("expanded", EXPANDED * samples * (context + own), EXPANDED * (context + samples * own)),
        (
            "mixed",
            samples * (EXPANDED * context + ABSORBED * own),
            EXPANDED * context + LATENT * samples * own,
        ),
    ):
        assert done(latent_form=form, **sizes) == (flops, values)


def test_the_mixed_form_by_hand() -> None:
    """Two samples of 1,000 shared and 10 own tokens: both queries, both outputs, the merge.

    128 heads: queries of 192 and of 576 values, outputs of 128 and of 512, log-sum-exps of 4 bytes.
    """
    sizes = {"samples": 2, "context_tokens": 1000, "decoded_tokens": 10}
    named, rows = layer(latent_form="mixed", **sizes), 2 * 128
    context, own = named["attention_context"], named["attention_suffix"]
    assert (context.kind, own.kind) == ("attention", "latent_attention")
    assert context.flops == 2 * rows * 1000 * (192 + 128)
    assert context.kv_bytes_read == 2 * 128 * 1000 * (192 + 128)
    assert context.bytes_read == context.kv_bytes_read + 2 * rows * 192
    assert own.flops == 2 * rows * 10 * (576 + 512)
    assert own.bytes_read == 2 * 2 * 10 * 576 + 2 * rows * 576
    assert own.bytes_written == rows * (2 * 512 + 4)
    # The own tokens' outputs leave the latent space, and then both have 128 values.
    assert named["latent_value"].flops == 2 * rows * 512 * 128
    assert named["attention_merge"].bytes_read == 2 * rows * (2 * 128 + 4)
    assert named["attention_merge"].bytes_written == 2 * rows * 128
    # Queries pass into the latent space once more.
    assert named["latent_absorb"].flops == 2 * rows * 128 * 512
    assert "kv_up_projection" not in named


def test_the_expanded_form_projects_and_writes_the_new_tokens() -> None:
    """Nothing is absorbed; each new token's keys and values of 128 heads are written."""
    named = layer(latent_form="expanded", samples=2)
    assert not {"latent_absorb", "latent_value"} & named.keys()
    assert named["kv_up_projection"].flops == 2 * 2 * 512 * 128 * (128 + 128)
    assert named["kv_write"].bytes_written == 2 * 40960 * 2
    assert {each.kind for name, each in named.items() if "attention_context" in name} <= {
        "attention",
        "combine",
    }


def test_standard_attention_has_nothing_to_mix() -> None:
    """Auto and mixed are absorbed there."""
    absorbed, *others = (
        step_operations(deepseek_v3(), attention="standard", latent_form=form)
        for form in ("absorbed", "mixed", "auto")
    )
    assert others == [absorbed, absorbed]


@given(
    samples=st.integers(1, 2000),
    context=st.integers(0, 50000),
    own=st.integers(1, 5000),
    queries=st.integers(1, 8),
    ranks=st.sampled_from([1, 2, 8, 64]),
)
def test_mixing_trades_bytes_for_flops(
    samples: int, context: int, own: int, queries: int, ranks: int
) -> None:
    """Never more FLOPs and never fewer bytes than absorbed, over any group of GPUs."""
    sizes = {
        "samples": samples,
        "context_tokens": context,
        "decoded_tokens": own,
        "query_tokens": queries,
        "tensor_parallel": ranks,
    }
    mixed, absorbed = (done(latent_form=form, **sizes) for form in ("mixed", "absorbed"))
    assert mixed[0] <= absorbed[0]
    assert mixed[1] - absorbed[1] == pytest.approx((EXPANDED / ranks - LATENT) * context)


@pytest.mark.parametrize(("gpu", "samples"), [("h100-sxm", 87), ("h200-sxm", 61), ("b200", 83)])
def test_mixing_pays_from_where_flops_and_bytes_take_equally_long(gpu: str, samples: int) -> None:
    """320 / 1,088 of the ridge at data-sheet peaks; halved by two query tokens and by fp8."""
    card = load_hardware(gpu)
    ridge = (card.peak_flops_per_s("bf16") or 0) / card.memory_bandwidth_bytes_per_s
    found = mixing_pays_from(V3, query_tokens=1, flops_per_byte=ridge)
    assert round(found) == samples
    assert mixing_pays_from(V3, query_tokens=2, flops_per_byte=ridge) == found / 2
    assert mixing_pays_from(V3, query_tokens=1, flops_per_byte=ridge, kv_bytes=1) == found / 2
    # There, the absorbed context's FLOPs take as long as the expanded one's bytes.
    assert 2 * K * ABSORBED * found / ridge == pytest.approx(2 * K * EXPANDED)


def test_memory_keeps_the_shared_context_twice() -> None:
    """61 layers, 2 prompts of 1,000 tokens, 4 samples each of 100: 40,960 values more a token."""
    work = Workload(prompts=2, samples=4, context_tokens=1000, decoded_tokens=100)
    latent = 61 * 576 * 2 * (1000 + 4 * 100) * 2

    def held(form: str, **changes: Any) -> float:
        setup, _ = asked(attention="bifurcated", latent_form=form, **changes)
        return float(kv_cache_bytes(deepseek_v3(), setup, work))

    assert held("absorbed") == latent
    assert held("mixed") == latent + 61 * 40960 * 2 * 1000 * 2
    assert held("mixed", tensor_parallel=8) == latent + 61 * 40960 / 8 * 2 * 1000 * 2
    assert held("mixed", kv_dtype="fp8") == held("mixed") / 2
    assert held("expanded") == latent / 576 * 40960


def test_a_tree_keeps_the_split_levels_expanded() -> None:
    """The root once and its 3 nodes; a last level that is joined with own tokens stays latent."""
    sizes = {"samples": 2, "decoded_tokens": 10, "attention": "bifurcated"}
    for tree, expanded, absorbed in (
        ("100,20x3", 100 + 3 * 20, 6 * 10),
        ("100+20x3", 3 * 120, 6 * 10),
        ("100,20x3+", 100, 6 * (10 + 20)),
    ):
        joined = tree.endswith("+")
        setup, work = asked(latent_form="mixed", **sizes, tree=tree.rstrip("+"))
        work = work.splitting(
            [
                level.name
                for level in work.tree
                if level.split and not (joined and level is work.tree[-1])
            ]
        )
        listed = step_operations(deepseek_v3(), **setup.as_dict(), **work.as_dict())
        read = {
            kind: sum(each.kv_bytes_read for each in listed if each.kind == kind) / 2
            for kind in ("attention", "latent_attention")
        }
        stored = {"100,20x3": 160, "100+20x3": 160, "100,20x3+": 100}[tree]
        kept = kv_cache_bytes(deepseek_v3(), setup, work)
        latent = kv_cache_bytes(deepseek_v3(), setup.but(latent_form="absorbed"), work)
        assert kept - latent == 61 * stored * 40960 * 2
        assert read == {"attention": expanded * 40960, "latent_attention": absorbed * 576}


def test_prefill_writes_the_expanded_context_once() -> None:
    """Its product is the prefill's own; keys get the one rotary part in every head."""
    work = Workload(prompts=3, samples=50, context_tokens=1000)
    mixed, absorbed = (
        prefill_operations(deepseek_v3(), Setup(attention="bifurcated", latent_form=form), work)
        for form in ("mixed", "absorbed")
    )
    [write] = [each for each in mixed if each.name == "latent_context_write"]
    assert write.bytes_read == 3 * 1000 * (128 * 256 + 64) * 2
    assert write.bytes_written == 3 * 1000 * 40960 * 2
    assert write.repeat == 61
    assert [each for each in mixed if each is not write] == absorbed
    assert total(mixed).flops == total(absorbed).flops
    assert {each.kind for each in mixed if each.name == "prefill_attention"} == {"latent_prefill"}
