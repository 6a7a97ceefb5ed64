"""The command line and the functions of ``import simulator`` give the same answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from command_line import bifurcate

import simulator
from simulator.views.estimate import compare_object, estimate_object
from simulator.views.generate import generate_object
from simulator.views.load import serve_object
from simulator.views.plan import plan_object

MODELS = ["llama-3.1-8b", "llama-2-7b", "starcoder", "mixtral-8x7b", "deepseek-v3", "gpt-oss-20b"]
SETTINGS: list[tuple[Sequence[str], Mapping[str, Any]]] = [
    ((), {}),
    (("-g", "a100-sxm-80gb", "-n", "3"), {"gpu": "a100-sxm-80gb", "samples": 3}),
    (
        ("--input-len", "2k", "--batch-size", "4", "--decoded", "0"),
        {"context_tokens": 2000, "prompts": 4, "decoded_tokens": 0},
    ),
    (
        ("--execution", "eager", "--kernel", "einsum", "--query-tokens", "2"),
        {"execution": "eager", "kernel": "einsum", "query_tokens": 2},
    ),
    (
        ("--dtype", "fp8", "--kv-cache-dtype", "int8", "--gpu-memory-utilization", "0.5"),
        {"weight_dtype": "fp8", "kv_dtype": "int8", "gpu_memory_utilization": 0.5},
    ),
    (
        ("--constants", "peak", "--kv-layout", "shared"),
        {"constants": "peak", "kv_layout": "shared"},
    ),
    (("--output-len", "500"), {"decoded_tokens": 499}),
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("options", "keywords"), SETTINGS)
@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
def test_estimate(
    model: str, options: Sequence[str], keywords: Mapping[str, Any], attention: str
) -> None:
    """estimate gives the numbers of simulator.estimate, to the last digit."""
    shown = bifurcate("estimate", "-m", model, *options, "--attention", attention, "--json").json
    assert shown == estimate_object(simulator.estimate(model, attention=attention, **keywords))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("options", "keywords"), SETTINGS[:5])
def test_compare(model: str, options: Sequence[str], keywords: Mapping[str, Any]) -> None:
    """compare gives the numbers of simulator.compare, to the last digit."""
    shown = bifurcate("compare", "-m", model, *options, "--json").json
    assert shown == compare_object(simulator.compare(model, **keywords))


@pytest.mark.parametrize("form", ["auto", "absorbed", "expanded", "mixed"])
def test_forms_of_latent_attention(form: str) -> None:
    """Each form is the API's, in a step and in a comparison."""
    asked = ("-m", "kimi-k2", "-n", "200", "--latent-form", form, "--json")
    keywords: Mapping[str, Any] = {"samples": 200, "latent_form": form}
    shown = bifurcate("estimate", *asked, "--attention", "bifurcated").json
    answer = simulator.estimate("kimi-k2", attention="bifurcated", **keywords)
    assert shown == estimate_object(answer)
    assert shown["inputs"]["latent_form"] == ("mixed" if form == "auto" else form)
    shown = bifurcate("compare", *asked).json
    assert shown == compare_object(simulator.compare("kimi-k2", **keywords))


def test_the_step_asked_about_is_the_last_of_the_request() -> None:
    """estimate --output-tokens is generate's last step, with drafts that are not all kept too."""
    drafts = ("--output-len", "100", "--query-tokens", "4", "--accepted-tokens", "2.5")
    for options in (drafts, drafts[:2]):
        step = bifurcate("estimate", "-m", "llama-3.1-8b", *options, "--json").json
        request = bifurcate("generate", "-m", "llama-3.1-8b", *options, "--json").json
        assert step["step_ms"] == request["standard"]["last_step_ms"]


@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v3"])
def test_generate(model: str) -> None:
    """generate gives the numbers of simulator.generate for both kinds of attention."""
    options = ("--output-len", "40", "--tp", "2", "--users", "4")
    shown = bifurcate("generate", "-m", model, *options, "--json").json
    results = {
        attention: simulator.generate(
            model, output_tokens=40, tensor_parallel=2, users=4, attention=attention
        )
        for attention in ("standard", "bifurcated")
    }
    assert shown == generate_object(results)


def test_plan() -> None:
    """plan gives the numbers of simulator.plan."""
    options = ("-m", "mistral-7b", "-g", "l4", "-g", "h200", "--gpus", "1", "--gpus", "2")
    shown = bifurcate("plan", *options, "--target-step-ms", "20", "--json").json
    result = simulator.plan(
        "mistral-7b", ["l4", "h200"], tensor_parallel_sizes=[1, 2], target_step_ms=20
    )
    assert shown == plan_object(result)


def test_serve() -> None:
    """serve gives the numbers of simulator.serve, one sample unless asked."""
    options = ("-m", "mistral-7b", "-g", "l40s", "--input-len", "2K", "--output-len", "128")
    more = ("--cached-tokens", "1K", "--max-num-seqs", "32", "--max-batched-tokens", "2K")
    more += ("--users", "4,8", "--requests-per-s", "0.5,1")
    shown = bifurcate("serve", *options, *more, "--price-per-hour", "1", "--json").json
    result = simulator.serve(
        "mistral-7b",
        "l40s",
        context_tokens="2K",
        output_tokens=128,
        cached_tokens="1K",
        most_sequences=32,
        max_batched_tokens=2048,
        price_per_hour=1,
        users=[4, 8],
        requests_per_s=[0.5, 1],
    )
    assert shown == serve_object(result)
    assert shown["inputs"]["samples"] == 1


def test_plan_for_a_load() -> None:
    """plan --requests-per-s gives the numbers of simulator.plan."""
    options = (
        "-m",
        "mistral-7b",
        "-g",
        "l4",
        "-g",
        "h200",
        "--tree",
        "system=4K,own=512",
        "-n",
        "2",
    )
    load = ("--requests-per-s", "12.5", "--ttft-ms", "900", "--tpot-ms", "40", "--gpus", "1")
    shown = bifurcate("plan", *options, *load, "--gpus-at-most", "64", "--json").json
    result = simulator.plan(
        "mistral-7b",
        ["l4", "h200"],
        tree="system=4K,own=512",
        samples=2,
        requests_per_s=12.5,
        ttft_ms=900,
        tpot_ms=40,
        tensor_parallel_sizes=1,
        gpus_at_most=64,
    )
    assert shown == plan_object(result)
    assert shown["inputs"]["cached_tokens"] == 4096


def test_plan_of_one_group() -> None:
    """The group size that --tp names is the only one tried, also where it is the default."""
    for size in 1, 2:
        shown = bifurcate("plan", "-m", "gpt2", "-g", "h200", "--tp", str(size), "--json").json
        assert {option["gpus"] for option in shown["options"]} == {size}
        assert shown == plan_object(simulator.plan("gpt2", ["h200"], tensor_parallel=size))
    every = bifurcate("plan", "-m", "gpt2", "-g", "h200", "--json").json
    assert {option["gpus"] for option in every["options"]} == {1, 2, 4}


def test_what_if_fewer_kv_heads() -> None:
    """--kv-heads is the kv_heads of the functions: multi-query reads 32 times fewer KV bytes."""
    shown = bifurcate("estimate", "-m", "llama-2-7b", "--kv-heads", "1", "--json").json
    assert shown == estimate_object(simulator.estimate("llama-2-7b", kv_heads=1))
    assert shown["kv_bytes_read"] * 32 == 69_256_347_648


def test_a_model_from_plain_sizes() -> None:
    """The sizes of Llama-2-7B, given as options, make the same step as its name."""
    sizes = "--layers 32 --hidden-size 4096 --heads 32 --intermediate-size 11008 --vocab-size 32000"
    shown = bifurcate("estimate", *sizes.split(), "--dtype", "fp16", "--json").json
    named = bifurcate("estimate", "-m", "llama-2-7b", "--json").json
    assert shown["inputs"]["parameters"] == 6_738_415_616
    assert shown["operations"] == named["operations"]


def test_engines_names_of_options() -> None:
    """The engines' spellings of options mean the same as ours."""
    ours = bifurcate(
        *("estimate", "--model", "mistral-7b", "--gpu", "h200-sxm", "--samples", "8"),
        *("--context-tokens", "4096", "--prompts", "2", "--tp", "2", "--dtype", "fp8", "--json"),
    )
    theirs = bifurcate(
        *("estimate", "-m", "mistral-7b", "--hardware", "NVIDIA H200", "--num-samples", "8"),
        *("--input-len", "4K", "--batch-size", "2", "--tensor-parallel-size", "2"),
        *("--quantization", "fp8", "--json"),
    )
    assert ours.json == theirs.json
