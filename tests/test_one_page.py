"""The page that prints the paper agrees, to the last bit, with the package built on it."""

import ast
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

import simulator
from simulator import ModelShape, one_page
from simulator.inputs.presets import presets
from simulator.one_page import Sizes, decode_step, kv_bytes, roofline_s

PAGE = Path(one_page.__file__)
CHECKOUT = Path(__file__).parents[1]
GPUS = ("h100-sxm", "a100-sxm-80gb", "l4", "v100-sxm2-32gb", "mi300x")
ATTENTIONS = ("standard", "bifurcated")


def plain_models() -> list[ModelShape]:
    """Return the presets that the page describes: full attention, a gated MLP, 16 bits."""
    models = (preset.model for preset in presets().values())
    return [
        model
        for model in models
        if all(group.window is None and group.mlp == "dense" for group in model.layer_groups)
        and model.gated_mlp
        and model.latent is None
        and model.qk_norm == "none"
        and not model.qkv_bias
        and str(model.weights) in ("bf16", "fp16")
    ]


def sizes_of(model: ModelShape, *, b: int, m_c: int, m_d: int) -> Sizes:
    """Return a model and a batch in the page's symbols."""
    return Sizes(
        b=b,
        m_c=m_c,
        m_d=m_d,
        g=model.kv_heads,
        k=model.head_dim,
        h=model.heads,
        L=model.layers,
        d=model.hidden_size,
        f=model.intermediate_size,
        v=model.vocab_size,
    )


def test_the_page_equals_the_package() -> None:
    """FLOPs, bytes, KV bytes and time are equal, with no tolerance, over more than 1,000 cases."""
    gpus = [simulator.load_hardware(name) for name in GPUS]
    cases = list(
        product(
            gpus, plain_models(), (1, 16, 300), ((1000, 1), (8192, 64), (131_072, 900)), ATTENTIONS
        )
    )
    assert len(cases) > 1000
    for gpu, model, samples, (context_tokens, decoded_tokens), attention in cases:
        answer = simulator.estimate(
            model,
            gpu,
            samples=samples,
            context_tokens=context_tokens,
            decoded_tokens=decoded_tokens,
            attention=attention,
            kernel="ideal",
            kv_layout="copies",
            constants="peak",
        )
        sizes = sizes_of(model, b=samples, m_c=context_tokens, m_d=decoded_tokens)
        step = decode_step(sizes, attention)
        # A V100 has no bf16.
        rate = gpu.peak_flops_per_s("bf16") or gpu.peak_flops_per_s("fp16")
        found = (
            sum(times * flops for _, times, flops, _ in step),
            sum(times * moved for _, times, _, moved in step),
            sizes.L * kv_bytes(sizes, attention),
            roofline_s(step, (gpu.memory_bandwidth_bytes_per_s, rate)),
        )
        totals = answer.totals
        assert found == (
            totals.flops,
            totals.bytes_read + totals.bytes_written,
            totals.kv_bytes_read,
            # The package adds attention last, which may change the last digit.
            pytest.approx(answer.step_s, rel=1e-14),
        ), (gpu.id, model.name, samples, context_tokens, attention)


def test_the_page_prints_the_paper_s_example() -> None:
    """Llama-2-7B, 16 samples of 8192 tokens with 64 more each: KV reads of 69.26 and 4.83 GB.

    Worked by hand: 524,288 bytes a token, times 16 (8192 + 64) and 8192 + 16 x 64 tokens.
    """
    assert 524_288 * 16 * (8192 + 64) == 69_256_347_648
    assert 524_288 * (8192 + 16 * 64) == 4_831_838_208
    run = subprocess.run(
        [sys.executable, "-m", "simulator.one_page"], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == [
        "Llama-2-7B on H100, standard   KV 69.26 GB  step 24.67 ms",
        "Llama-2-7B on H100, bifurcated KV  4.83 GB  step  5.44 ms",
    ]


def test_the_example_is_that_of_the_shipped_files() -> None:
    """The rates and the model that the page writes out are those of h100-sxm and llama-2-7b."""
    gpu, model = simulator.load_hardware("h100-sxm"), simulator.load_model("llama-2-7b")
    text = PAGE.read_text(encoding="utf-8")
    assert gpu.memory_bandwidth_bytes_per_s == 3350e9
    assert gpu.peak_flops_per_s("bf16") == 989.4e12
    assert "(3350e9, 989.4e12)" in text
    sizes = sizes_of(model, b=16, m_c=8192, m_d=64)._asdict()
    del sizes["s"]
    assert f"Sizes({', '.join(f'{name}={value}' for name, value in sizes.items())})" in text


def test_the_page_is_one_page() -> None:
    """At most 70 lines, which import nothing but the standard library."""
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("\n") <= 70
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in imports] == ["typing"]
    assert not any(isinstance(node, ast.Import) for node in ast.walk(ast.parse(text)))


def test_a_reader_meets_the_page_first() -> None:
    """It is the first link of README and of the page on the architecture."""
    for name, link in (
        ("README.md", "simulator/one_page.py"),
        ("docs/architecture.md", "../simulator/one_page.py"),
    ):
        first = re.search(r"\]\(([^)]+)\)", (CHECKOUT / name).read_text(encoding="utf-8"))
        assert first is not None
        assert first[1] == link
