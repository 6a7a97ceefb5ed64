"""The JSON of every answer has the fields of docs/commands.md, and its parts add up."""

from typing import Any

import pytest
from command_line import bifurcate

Number = (int, float)
OptionalNumber = (int, float, type(None))

MEMORY = {
    "weights_bytes": Number,
    "kv_bytes": Number,
    "workspace_bytes": Number,
    "reserve_bytes": Number,
    "memory_bytes": Number,
    "memory_bytes_low": Number,
    "memory_bytes_high": Number,
    "capacity_bytes": Number,
    "fits": bool,
    "memory_verdict": str,
}
PARALLELISM = dict.fromkeys(
    ("tensor_parallel", "data_parallel", "expert_parallel", "pipeline_parallel"), int
)
WORKLOAD: dict[str, Any] = {
    "context_tokens": int,
    "samples": int,
    "prompts": int,
    "decoded_tokens": int,
    "query_tokens": int,
    "accepted_tokens": Number,
    "sequences": int,
    **PARALLELISM,
    "attention": str,
    "kernel": str,
    "kv_layout": str,
    "execution": str,
    "weight_dtype": str,
    "kv_dtype": str,
    "routing": str,
    "routing_exponent": Number,
    "latent_form": str,
    "tree": str,
}
INPUTS: dict[str, Any] = {
    "model": str,
    "parameters": int,
    "active_parameters": int,
    "layers": int,
    "hidden_size": int,
    "heads": int,
    "kv_heads": int,
    "head_dim": int,
    "gpu": str,
    **WORKLOAD,
    "gpu_memory_utilization": float,
    "engine": str,
    "max_batched_tokens": (int, type(None)),
    "constants": str,
}
HARDWARE = {"name": str, "hash": str, "constants": str}
OPERATION = {
    "name": str,
    "kind": str,
    "repeat": int,
    "flops": Number,
    "bytes_read": Number,
    "bytes_written": Number,
    "memory_traffic_bytes": Number,
    "launches": int,
    "time_ms": float,
    "bound": str,
}
ESTIMATE: dict[str, Any] = {
    "schema_version": int,
    "inputs": INPUTS,
    "step_ms": float,
    "step_ms_low": float,
    "step_ms_high": float,
    "device_ms": float,
    "host_ms": Number,
    "collective_ms": Number,
    "tokens_per_s": float,
    "flops": int,
    "bytes_read": Number,
    "bytes_written": Number,
    "memory_traffic_bytes": Number,
    "memory_traffic_bytes_low": Number,
    "kv_bytes_read": Number,
    "weight_bytes_read": Number,
    "launches": int,
    "bound": str,
    "memory": MEMORY,
    "operations": [OPERATION],
    "hardware": HARDWARE,
    "notes": [str],
}
COMPARE: dict[str, Any] = {
    "schema_version": int,
    "standard": ESTIMATE,
    "copies": ESTIMATE,
    "bifurcated": ESTIMATE,
    "speedup": float,
    "speedup_low": float,
    "speedup_high": float,
    "speedup_over_copies": float,
    "kv_io_ratio": float,
    "winner": str,
    "verdict": str,
    "break_even_samples": (int, type(None)),
    "break_even_context_tokens": (int, type(None)),
    "advice": str,
    "how": str,
}
RULE = {
    "name": str,
    "choice": str,
    "reason": str,
    "ours": str,
    "verdict": str,
    "agrees": bool,
    "step_ms": float,
    "best_step_ms": float,
    "cost_ms": float,
    "cost_share": float,
}
POINT: dict[str, Any] = {
    "attention": str,
    "concurrency": int,
    "ttft_ms": OptionalNumber,
    "ttft_ms_low": OptionalNumber,
    "ttft_ms_high": OptionalNumber,
    "tpot_ms": OptionalNumber,
    "tpot_ms_low": OptionalNumber,
    "tpot_ms_high": OptionalNumber,
    "total_ms": OptionalNumber,
    "total_ms_low": OptionalNumber,
    "total_ms_high": OptionalNumber,
    "tokens_per_s_per_user": float,
    "tokens_per_s_per_gpu": float,
    "tokens_per_s": float,
    "requests_per_s": float,
    "requests_decoding": Number,
    "utilisation": float,
    "headroom": float,
    "saturates": str,
    "usd_per_hour": OptionalNumber,
    "usd_per_month": OptionalNumber,
    "usd_per_million_tokens": OptionalNumber,
}
LOADED = [*list(POINT)[1:13], "usd_per_million_tokens"]
REQUEST: dict[str, Any] = {
    "prefill_ms": float,
    "decode_ms": float,
    "total_ms": float,
    "total_ms_low": float,
    "total_ms_high": float,
    "first_step_ms": float,
    "last_step_ms": float,
    "time_per_output_token_ms": float,
    "output_tokens": int,
    "decode_steps": int,
    "all_output_tokens": int,
    "tokens_per_s": float,
    "usd_per_hour": OptionalNumber,
    "usd_per_million_tokens": OptionalNumber,
    "prefill_bound": str,
    **{f"loaded_{key}": OptionalNumber for key in LOADED},
    "memory": MEMORY,
    "notes": [str],
}
GENERATE: dict[str, Any] = {
    "schema_version": int,
    "inputs": {
        **{key: kind for key, kind in INPUTS.items() if key != "decoded_tokens"},
        "attention": [str],
        "output_tokens": int,
    },
    "hardware": HARDWARE,
    "standard": REQUEST,
    "bifurcated": REQUEST,
    "speedup": float,
}
OPTION: dict[str, Any] = {
    "gpu": str,
    "gpus": int,
    **PARALLELISM,
    "attention": str,
    "step_ms": float,
    "step_ms_low": float,
    "step_ms_high": float,
    "tokens_per_s": float,
    "bound": str,
    "fits": bool,
    "verdict": str,
    "meets_target": bool,
    "pareto": bool,
    "dominated": bool,
    "usd_per_hour": OptionalNumber,
    "usd_per_million_tokens": OptionalNumber,
    "price": (str, type(None)),
    "price_source": (str, type(None)),
    "price_comparable": bool,
    "most_samples": (int, type(None)),
    "most_samples_surely": (int, type(None)),
    "most_samples_in_time": (int, type(None)),
    "longest_context_tokens": (int, type(None)),
    "longest_context_tokens_surely": (int, type(None)),
    "longest_context_tokens_in_time": (int, type(None)),
    "memory_bytes": Number,
    "memory_bytes_low": Number,
    "memory_bytes_high": Number,
    "capacity_bytes": Number,
    "memory_verdict": str,
    "constants": str,
}
PLAN: dict[str, Any] = {
    "schema_version": int,
    "inputs": {
        key: kind for key, kind in INPUTS.items() if key not in ("gpu", "attention", *PARALLELISM)
    },
    "target_step_ms": OptionalNumber,
    "cheapest": OPTION,
    "cheapest_maybe": type(None),
    "fewest_gpus": {"h100-sxm": int},
    "options": [OPTION],
    "skipped": [str],
    "notes": [str],
}
PERCENTILES = dict.fromkeys(
    [f"{name}_ms_p{percent}" for name in ("ttft", "tpot") for percent in (50, 90, 99)],
    OptionalNumber,
)
SERVED = {
    "attention": str,
    "concurrency": (int, type(None)),
    "arrivals_per_s": OptionalNumber,
    **{key: kind for key, kind in POINT.items() if key not in ("attention", "concurrency")},
    **PERCENTILES,
}
LOAD_INPUTS: dict[str, Any] = {
    **{
        key: kind
        for key, kind in INPUTS.items()
        if key
        not in ("attention", "kv_layout", "prompts", "sequences", "decoded_tokens", "constants")
    },
    "output_tokens": int,
    "cached_tokens": int,
}
SERVE: dict[str, Any] = {
    "schema_version": int,
    "inputs": LOAD_INPUTS,
    "hardware": HARDWARE,
    "points": [SERVED],
    "notes": [str],
}
LOAD_OPTION: dict[str, Any] = {
    "verdict": str,
    "missed": str,
    "pareto": bool,
    "dominated": bool,
    "gpu": str,
    "gpus": int,
    **PARALLELISM,
    "replicas": int,
    **{key: kind for key, kind in POINT.items() if key != "concurrency"},
    **PERCENTILES,
    "price": (str, type(None)),
    "price_source": (str, type(None)),
    "price_comparable": bool,
    "constants": str,
    "launch": str,
}
LOAD_PLAN: dict[str, Any] = {
    "schema_version": int,
    "inputs": {key: kind for key, kind in LOAD_INPUTS.items() if key not in ("gpu", *PARALLELISM)},
    "targets": {
        "requests_per_s": float,
        "ttft_ms": OptionalNumber,
        "tpot_ms": OptionalNumber,
        "percentile": OptionalNumber,
    },
    "cheapest": LOAD_OPTION,
    "cheapest_maybe": LOAD_OPTION,
    "fewest_gpus": {"h100-sxm": int},
    "options": [LOAD_OPTION],
    "skipped": [str],
    "notes": [str],
}
STEP = {"what": str, "formula": str, "numbers": str, "result": str, "reference": str}

QUESTION = ("-m", "llama-3.1-8b", "-n", "16", "--context", "8K", "--json")
QUESTIONS = [
    QUESTION,
    ("-m", "gpt2", "-g", "l4", "-n", "1", "--context", "0", "--decoded", "0", "--json"),
    ("-m", "deepseek-v3", "--tp", "8", "--attention", "bifurcated", "--json"),
    ("-m", "gemma-2-9b", "--execution", "eager", "--kernel", "einsum", "--json"),
    ("-m", "mixtral-8x7b", "--kv-layout", "rebuilt", "--dtype", "int4", "--json"),
]


def check(value: Any, schema: Any, where: str) -> None:
    """Demand exactly the fields of a schema, in its order, with values of its types."""
    if isinstance(schema, dict):
        assert list(value) == list(schema), where
        for key, part in schema.items():
            check(value[key], part, f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        for index, item in enumerate(value):
            check(item, schema[0], f"{where}[{index}]")
    else:
        kinds = schema if isinstance(schema, tuple) else (schema,)
        assert type(value) in kinds, f"{where} = {value!r}"


@pytest.mark.parametrize("question", QUESTIONS)
def test_estimate_has_the_documented_fields(question: tuple[str, ...]) -> None:
    """estimate --json has every documented field, no other, and of the right types."""
    check(bifurcate("estimate", *question).json, ESTIMATE, "estimate")


@pytest.mark.parametrize("question", QUESTIONS)
def test_operations_add_up_to_the_totals(question: tuple[str, ...]) -> None:
    """The sum over operations of figure times repeat is the total, for every figure."""
    answer = bifurcate("estimate", *question).json
    for field in ("flops", "bytes_read", "bytes_written", "launches"):
        parts = sum(item[field] * item["repeat"] for item in answer["operations"])
        assert parts == pytest.approx(answer[field], rel=1e-12), field
    times = sum(item["time_ms"] * item["repeat"] for item in answer["operations"])
    assert times == pytest.approx(answer["device_ms"] + answer["collective_ms"], rel=1e-9)
    assert all(item["launches"] > 0 for item in answer["operations"])
    step = max(answer["device_ms"], answer["host_ms"]) + answer["collective_ms"]
    assert answer["step_ms"] == pytest.approx(step, rel=1e-12)
    assert answer["step_ms_low"] <= answer["step_ms"] <= answer["step_ms_high"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_memory_adds_up(question: tuple[str, ...]) -> None:
    """Total memory is the sum of its parts; fits compares it, the verdict its interval."""
    memory = bifurcate("estimate", *question).json["memory"]
    parts = sum(memory[f"{name}_bytes"] for name in ("weights", "kv", "workspace", "reserve"))
    assert memory["memory_bytes"] == pytest.approx(parts, rel=1e-12)
    assert memory["fits"] == (memory["memory_bytes"] <= memory["capacity_bytes"])
    low, high = memory["memory_bytes_low"], memory["memory_bytes_high"]
    assert low < memory["memory_bytes"] < high
    surely, may = high <= memory["capacity_bytes"], low <= memory["capacity_bytes"]
    verdict = "fits" if surely else "too close to call" if may else "does not fit"
    assert memory["memory_verdict"] == verdict


def test_estimate_golden() -> None:
    """Llama-2-7B, 16 samples of 8K: KV bytes by hand, L x 2 g k x 2 B x b x (m_c + m_d)."""
    answer = bifurcate("estimate", "-m", "llama-2-7b", "-n", "16", "--context", "8K", "--json").json
    assert answer["kv_bytes_read"] == 32 * 2 * 32 * 128 * 2 * 16 * (8192 + 64) == 69_256_347_648
    assert answer["inputs"]["parameters"] == 6_738_415_616


def test_compare_has_the_documented_fields() -> None:
    """compare --json nests three estimates and has every documented field."""
    answer = bifurcate("compare", *QUESTION).json
    check(answer, COMPARE, "compare")
    standard, bifurcated = answer["standard"], answer["bifurcated"]
    assert answer["speedup"] == pytest.approx(
        standard["step_ms"] / bifurcated["step_ms"], rel=1e-12
    )
    ratio = standard["kv_bytes_read"] / bifurcated["kv_bytes_read"]
    assert ratio == 16 * (8192 + 64) / (8192 + 16 * 64)
    assert answer["kv_io_ratio"] == pytest.approx(ratio)
    copies = answer["copies"]
    assert copies["kv_bytes_read"] == standard["kv_bytes_read"]
    assert standard["memory"]["kv_bytes"] == bifurcated["memory"]["kv_bytes"]
    over_copies = copies["step_ms"] / bifurcated["step_ms"]
    assert answer["speedup_over_copies"] == pytest.approx(over_copies)


def test_compare_over_copies_has_its_fields() -> None:
    """The question's own layout is standard's: there are no other copies to compare with."""
    answer = bifurcate("compare", *QUESTION, "--kv-layout", "copies").json
    check(answer, {**COMPARE, "copies": type(None), "speedup_over_copies": type(None)}, "compare")
    stored = bifurcate("compare", *QUESTION).json
    assert answer["standard"] == stored["copies"]
    assert answer["speedup"] == stored["speedup_over_copies"]


def test_compare_with_a_rule_has_its_fields() -> None:
    """compare --rule adds one object, and --format csv its figures; nothing else changes."""
    answer = bifurcate("compare", *QUESTION, "--rule", "vllm").json
    check(answer, {**COMPARE, "rule": RULE}, "compare")
    rule = answer.pop("rule")
    assert answer == bifurcate("compare", *QUESTION).json
    assert rule["step_ms"] == answer["standard"]["step_ms"]
    assert rule["best_step_ms"] == answer["bifurcated"]["step_ms"]
    assert rule["cost_ms"] == pytest.approx(rule["step_ms"] - rule["best_step_ms"])
    table = bifurcate("compare", *QUESTION[:-1], "--rule", "vllm", "--format", "csv").text
    columns, first, *_ = [line.split(",") for line in table.splitlines()]
    shown = dict(zip(columns, first, strict=True))
    assert shown["rule_choice"] == rule["choice"] == "standard"
    assert shown["rule_cost_ms"] == f"{rule['cost_ms']:.9g}"
    assert shown["rule_agrees"] == str(rule["agrees"]).lower()


def test_compare_has_null_where_nothing_breaks_even() -> None:
    """Without a break-even point the field is null, not left out: one sample shares nothing."""
    answer = bifurcate("compare", "-m", "llama-3.1-8b", "-n", "1", "--json").json
    check(answer, COMPARE, "compare")
    assert answer["winner"] in ("standard", "tie")
    assert answer["break_even_context_tokens"] is None


def test_generate_has_the_documented_fields() -> None:
    """generate --json has every documented field, and its times and costs hang together."""
    answer = bifurcate("generate", *QUESTION, "--output-len", "32", "--price-per-hour", "3.6").json
    check(answer, GENERATE, "generate")
    for kind in ("standard", "bifurcated"):
        item = answer[kind]
        assert item["total_ms"] == pytest.approx(item["prefill_ms"] + item["decode_ms"])
        assert item["time_per_output_token_ms"] * 31 == pytest.approx(item["decode_ms"])
        assert item["all_output_tokens"] == 16 * 32
        assert item["tokens_per_s"] == pytest.approx(16 * 32 / item["total_ms"] * 1e3)
        # 3.6 USD per hour is 0.001 USD per second.
        assert item["usd_per_million_tokens"] == pytest.approx(1e3 / item["tokens_per_s"])
        assert item["first_step_ms"] <= item["time_per_output_token_ms"] <= item["last_step_ms"]
    ratio = answer["standard"]["total_ms"] / answer["bifurcated"]["total_ms"]
    assert answer["speedup"] == pytest.approx(ratio)


def test_generate_of_one_kind_has_no_speedup() -> None:
    """With --attention there is one request, and nothing to compare it with."""
    answer = bifurcate("generate", *QUESTION, "--attention", "bifurcated").json
    assert "standard" not in answer
    assert "speedup" not in answer
    item = answer["bifurcated"]
    check(item, REQUEST, "bifurcated")
    assert all(item[f"loaded_{key}"] is None for key in LOADED)
    assert answer["inputs"]["output_tokens"] == 256
    assert answer["inputs"]["kv_layout"] == "shared"


def test_plan_has_the_documented_fields() -> None:
    """plan --json has every documented field, options cheapest per token first."""
    answer = bifurcate("plan", *QUESTION, "-g", "h100", "--target-step-ms", "10").json
    check(answer, PLAN, "plan")
    costs = [item["usd_per_million_tokens"] for item in answer["options"] if item["meets_target"]]
    assert costs == sorted(costs)
    assert answer["target_step_ms"] == pytest.approx(10)
    assert answer["cheapest"]["step_ms"] <= 10
    assert answer["inputs"]["kv_layout"] == "shared"
    for item in answer["options"]:
        surely = item["memory_verdict"] == "fits" and item["step_ms_high"] <= 10
        assert item["meets_target"] == surely == (item["verdict"] == "meets")
        cost = item["usd_per_hour"] / 3600 / item["tokens_per_s"] * 1e6
        assert item["usd_per_million_tokens"] == pytest.approx(cost)


def test_plan_without_an_answer_says_null() -> None:
    """Where nothing meets the target, cheapest and the fewest GPUs are null."""
    answer = bifurcate("plan", *QUESTION, "-g", "h100", "--target-step-ms", "0.001").json
    assert answer["cheapest"] is None
    assert answer["fewest_gpus"] == {"h100-sxm": None}


def test_serve_has_the_documented_fields() -> None:
    """serve --json has every documented field; a user's tokens are one over TPOT."""
    answer = bifurcate("serve", *QUESTION, "--output-len", "128").json
    check(answer, SERVE, "serve")
    assert {item["attention"] for item in answer["points"]} == {"standard", "bifurcated"}
    for item in answer["points"]:
        assert item["tokens_per_s_per_user"] == pytest.approx(1e3 / item["tpot_ms"])
        assert item["tokens_per_s"] == pytest.approx(16 * 128 * item["requests_per_s"])


def test_a_plan_for_a_load_has_the_documented_fields() -> None:
    """plan --requests-per-s --json has every documented field; GPUs are groups times replicas."""
    load = ("--requests-per-s", "40", "--tpot-ms", "10", "--output-len", "128", "-g", "h100")
    answer = bifurcate("plan", "-m", "llama-3.1-8b", "--input-len", "2K", *load, "--json").json
    check(answer, LOAD_PLAN, "plan")
    assert answer["inputs"]["samples"] == 1
    assert answer["cheapest"] == next(
        item for item in answer["options"] if item["verdict"] == "meets"
    )
    for item in answer["options"]:
        assert item["gpus"] == item["tensor_parallel"] * item["replicas"]
        assert item["headroom"] == pytest.approx(max(0.0, 1 - item["utilisation"]))
        assert item["usd_per_month"] == pytest.approx(730 * item["usd_per_hour"])
        if item["verdict"] == "meets":
            assert item["tpot_ms_high"] <= 10
        assert item["tokens_per_s"] == pytest.approx(40 * 128)


@pytest.mark.parametrize("command", ["estimate", "compare"])
def test_explanations_are_in_the_json_too(command: str) -> None:
    """--explain adds the derivation to the JSON."""
    answer = bifurcate(command, *QUESTION, "--explain").json
    explanation = answer["explanation"]
    kinds = explanation.values() if command == "compare" else [explanation]
    for steps in kinds:
        check(steps, [STEP], "explanation")
        assert len(steps) > 8
