"""The command line that starts a deployment in an engine."""

import shlex

import simulator
from simulator.answers.launch import launch_line


def _flags(**asked: object) -> dict[str, str]:
    curve = simulator.serve("deepseek-v3", "h200-sxm", output_tokens=512, **asked)
    command, served, model, *words = shlex.split(launch_line(curve.deployments[0]))
    assert (command, served, model) == ("vllm", "serve", "deepseek-ai/DeepSeek-V3")
    named = [(word, words[at + 1 : at + 2]) for at, word in enumerate(words) if word[:2] == "--"]
    return {word: "" if not then or then[0].startswith("--") else then[0] for word, then in named}


def test_a_line_has_the_flags_that_differ_from_the_defaults() -> None:
    """Parallelism, lengths, sequences of each engine, memory; what is 1 is left out."""
    asked = {"context_tokens": 2048, "data_parallel": 8, "expert_parallel": 8}
    flags = _flags(**asked, kv_dtype="fp8", max_batched_tokens=4096, most_sequences=256)
    assert flags == {
        "--data-parallel-size": "8",
        "--enable-expert-parallel": "",
        "--max-model-len": "2560",
        "--max-num-seqs": "256",
        "--max-num-batched-tokens": "4096",
        "--gpu-memory-utilization": "0.9",
        "--kv-cache-dtype": "fp8",
    }
    assert _flags(context_tokens=2048, tensor_parallel=8)["--tensor-parallel-size"] == "8"


def test_weights_in_another_format_are_quantised_by_the_engine() -> None:
    """fp8 of a checkpoint in 16 bits; a checkpoint's own format needs no flag."""
    asked = {"output_tokens": 64, "context_tokens": 512}
    lines = [
        launch_line(simulator.serve(name, "h100-sxm", **asked, **how).deployments[0])
        for name, how in (
            ("llama-3.1-8b", {"weight_dtype": "fp8"}),
            ("llama-3.1-8b", {}),
            ("gpt-oss-20b", {}),
        )
    ]
    assert ["--quantization fp8" in line for line in lines] == [True, False, False]


def test_other_engines_have_no_line() -> None:
    """Only vLLM's flags are known."""
    asked = {"output_tokens": 64, "context_tokens": 512, "engine": "sglang"}
    assert launch_line(simulator.serve("llama-3.1-8b", **asked).deployments[0]) == ""


def test_what_reads_a_context_once_is_switched_on() -> None:
    """vLLM's flag needs what all requests share; AMD's cards and windows have no kernel."""
    asked = {"output_tokens": 64, "samples": 8}
    own = simulator.serve("llama-3.1-8b", **asked, context_tokens=2048)
    assert [bool(launch_line(found)) for found in own.deployments] == [True, False]
    asked |= {"tree": "system=2K,own=512"}
    curve = simulator.serve("llama-3.1-8b", **asked)
    lines = {found.attention: launch_line(found) for found in curve.deployments}
    assert lines["bifurcated"] == f"{lines['standard']} --no-disable-cascade-attn"
    for model, card in (("llama-3.1-8b", "mi300x"), ("gpt-oss-20b", "h100-sxm")):
        (found,) = simulator.serve(model, card, attentions="bifurcated", **asked).deployments
        assert launch_line(found) == ""
