"""A traced decode step of a plain PyTorch transformer is what ``execution = "eager"`` counts."""

import re

import pytest

torch = pytest.importorskip("torch")

from collections.abc import Sequence  # noqa: E402
from dataclasses import replace  # noqa: E402

from builders import as_traced, drawn_layers  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

import simulator  # noqa: E402
from simulator.counts import transformer  # noqa: E402
from simulator.counts.operation import Operation, total  # noqa: E402
from simulator.counts.transformer import decode_operations  # noqa: E402
from simulator.evidence.kernels import KERNELS  # noqa: E402
from simulator.evidence.measure.cells import StepCell  # noqa: E402
from simulator.evidence.measure.steps import attention, step_caches  # noqa: E402
from simulator.evidence.measure.transformer import TOP_K, Decoder  # noqa: E402
from simulator.evidence.tracing import Trace, trace  # noqa: E402
from simulator.evidence.tracing.recorder import grouped  # noqa: E402
from simulator.evidence.tracing.recorder import total as traced_total  # noqa: E402
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype  # noqa: E402
from simulator.inputs.model import LayerGroup, ModelShape  # noqa: E402
from simulator.inputs.presets import load_model  # noqa: E402
from simulator.inputs.setup import Setup  # noqa: E402
from simulator.inputs.workload import Workload  # noqa: E402

Figures = dict[str, tuple[float, float, float, float]]  # FLOPs, read, written, launches
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

# Kernels that a setup has words for.
WORDED = sorted(
    name
    for name, known in KERNELS.items()
    if known.kernel == known.account and not known.expand_kv and known.layout != "packed"
)
UNFUSED = [name for name in WORDED if "flash" not in name and "rebuilt" not in name]
# Multi-head; grouped; QKV biases; LayerNorm, plain MLP, learned positions; multi-query in a
# parallel block; parallel LayerNorm; four norms and windows; norms of queries and keys, by head and
# over all; a norm without weights; a token table of another width.
MODELS = [
    "llama-2-7b",
    "mistral-7b",
    "qwen2.5-0.5b",
    "gpt2",
    "falcon-7b",
    "codegen-16b",
    "gemma-2-2b",
    "qwen3-8b",
]


def trace_step(model: ModelShape, kernel: str, work: Workload, format_: Dtype = "bf16") -> Trace:
    """Trace one decode step on the meta device, caches laid out as the kernel wants them."""
    dtype = DTYPES[format_]
    new = work.query_tokens
    tokens = work.prompts * work.samples * new
    position = work.context_tokens + work.decoded_tokens - 1
    decoder = Decoder(model, dtype=dtype, device="meta", position=position, query_tokens=new)
    decoder.place(tokens)
    names = ("prompts", "samples", "context_tokens", "decoded_tokens", "query_tokens")
    sizes = {name: getattr(work, name) for name in names}
    cell = StepCell(model=model, kernel=kernel, dtype=format_, **sizes)

    def meta(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    caches = step_caches(cell, meta)
    ids = torch.empty(tokens, dtype=torch.long, device="meta")
    # An engine has the masks of a step before it starts.
    attend = attention(cell, caches)
    return trace(lambda each: decoder(each, caches, attend), ids)


def account_of(model: ModelShape, setup: Setup, work: Workload) -> list[Operation]:
    """Return the account of the same step, as a trace sees it, on a GPU that splits keys.

    Where a window shows one token of the context, torch.einsum multiplies <w,V> elementwise: FLOPs
    that a trace does not count.
    """
    operations = as_traced(decode_operations(model, setup, work, resident_blocks=264))
    if setup.kernel != "einsum":
        return operations
    token = work.prompts * model.kv_heads * model.head_dim * DTYPE_BYTES[setup.kv_dtype]
    return [
        replace(each, flops=0)
        if each.name.startswith("attention_values_context") and each.kv_bytes_read == token
        else each
        for each in operations
    ]


def by_module(found: Trace, names: Sequence[str]) -> Figures:
    """Sum a trace by the operation that each module is named after."""

    def name_of(module: str) -> str:
        return next((part for part in reversed(module.split(".")) if part in names), module)

    groups = grouped(found.operations, lambda operation: name_of(operation.module))
    return {
        name: (each.flops, each.bytes_read, each.bytes_written, each.launches)
        for name, each in ((name, traced_total(equal)) for name, equal in groups.items())
    }


# Operations of an account that the module ``attention`` runs.
_INSIDE = ("attention", "query_fold", "kv_repeat", "kv_cast", "kv_concatenate")
_AROUND = ("attention_norm", "attention_residual", "attention_post_norm")


def by_operation(operations: list[Operation]) -> Figures:
    """Sum an account over layers, the kernel's operations under one name as in a trace."""
    sums: Figures = {}
    for each in operations:
        # Layers that read the cache of an earlier one have operations of their own, "..._2".
        name = re.sub(r"_\d+$", "", each.name)
        if name.startswith(_INSIDE) and name not in _AROUND:
            name = "attention"
        figures = (each.flops, each.bytes_read, each.bytes_written, each.launches)
        so_far = sums.get(name, (0, 0, 0, 0))
        sums[name] = tuple(  # type: ignore[assignment]
            total + value * each.repeat for total, value in zip(so_far, figures, strict=True)
        )
    return sums


def check(model: ModelShape, kernel: str, work: Workload, dtype: Dtype = "bf16") -> None:
    """Compare trace and account of a step in plain PyTorch, operation by operation."""
    account = by_operation(account_of(model, KERNELS[kernel].setup(dtype), work))
    assert by_module(trace_step(model, kernel, work, dtype), list(account)) == account


def few_layers(name: str) -> ModelShape:
    """A preset with one layer of each kind: layers are alike, and tracing all of them is slow."""
    model = load_model(name)
    groups = tuple(group.but(count=1) for group in model.layer_groups)
    return model.but(layers=len(groups), layer_groups=groups)


@pytest.mark.parametrize("kernel", WORDED)
@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_what_the_account_says(name: str, kernel: str) -> None:
    """FLOPs, bytes read, bytes written and launches of every operation, at full width."""
    work = Workload(samples=5, prompts=2, context_tokens=900, decoded_tokens=7)
    check(few_layers(name), kernel, work)


@pytest.mark.parametrize("kernel", WORDED)
@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_several_tokens_is_what_the_account_says(name: str, kernel: str) -> None:
    """Projections, rotary, cache write, attention, MLP, head and sampling of 4 query tokens."""
    sizes = {"samples": 3, "prompts": 2, "context_tokens": 900, "decoded_tokens": 7}
    one = Workload(**sizes)
    work = one.but(query_tokens=4)
    setup = KERNELS[kernel].setup("bf16")
    model = few_layers(name)
    check(model, kernel, work)
    # Four times the FLOPs everywhere; keys, values and weights are still read once.
    four, single = (
        total(decode_operations(model, setup, each, resident_blocks=1)) for each in (work, one)
    )
    assert four.flops == 4 * single.flops
    assert four.kv_bytes_read == single.kv_bytes_read


@pytest.mark.parametrize(
    ("name", "kernel"), [("llama-3.1-8b", "bifurcated_flash"), ("gpt2", "standard_math")]
)
def test_a_whole_model_is_what_estimate_says(name: str, kernel: str) -> None:
    """All layers: FLOPs, launches and bytes of the answer itself, to the last."""
    work = Workload(samples=16, context_tokens=8192, decoded_tokens=64)
    found = trace_step(load_model(name), kernel, work)
    asked = {**KERNELS[kernel].setup("bf16").as_dict(), **work.as_dict()}
    asked = {key: asked[key] for key in asked if key not in ("weight_dtype", "kv_dtype")}
    answer = simulator.estimate(name, "h100-sxm", **asked)
    assert found.flops == answer.totals.flops
    seen = as_traced(list(answer.operations))
    for field in ("bytes_read", "bytes_written", "launches"):
        total = sum(getattr(each, field) * each.repeat for each in seen)
        assert getattr(found, field) == total


@pytest.mark.parametrize("kernel", WORDED)
def test_a_window_may_show_one_token_of_the_context(kernel: str) -> None:
    """Gemma's window of 4096 tokens over 4095 decoded ones."""
    work = Workload(samples=5, prompts=2, context_tokens=900, decoded_tokens=4095)
    check(few_layers("gemma-2-2b"), kernel, work)


@pytest.mark.parametrize("kernel", WORDED)
@pytest.mark.parametrize("qk_norm", ["none", "head", "all"])
def test_layers_that_share_caches_are_what_the_account_says(kernel: str, qk_norm: str) -> None:
    """YOCO: windows, then one cache for three layers; two project to queries alone (CLA)."""
    groups = (
        LayerGroup(count=2, window=20),
        LayerGroup(count=1),
        LayerGroup(count=2, kv="earlier"),
    )
    shape = few_layers("llama-2-7b").replaced(
        {"layers": 5, "layer_groups": groups, "kv_heads": 8, "qk_norm": qk_norm}
    )
    check(shape, kernel, Workload(samples=5, prompts=2, context_tokens=90, decoded_tokens=7))


@st.composite
def small_models(draw: st.DrawFn) -> ModelShape:
    """Draw a small model with any of the small print."""
    kv_heads = draw(st.sampled_from([1, 2, 3]))
    hidden = draw(st.sampled_from([32, 96]))
    windows = draw(st.lists(st.sampled_from([None, 20, 100]), min_size=1, max_size=2, unique=True))
    return ModelShape(
        name="drawn",
        layers=len(windows),
        hidden_size=hidden,
        heads=kv_heads * draw(st.sampled_from([1, 2, 5])),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([8, 64])),
        intermediate_size=draw(st.sampled_from([48, 128])),
        vocab_size=draw(st.sampled_from([97, 1000])),
        layer_groups=tuple(LayerGroup(count=1, window=window) for window in windows),
        norm_weight=draw(st.booleans()),
        norm_bias=draw(st.booleans()),
        **drawn_layers(draw),
    )


@given(
    small_models(),
    st.sampled_from(WORDED),
    st.sampled_from(["bf16", "fp16", "fp32"]),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(130, 600),
    st.integers(2, 19),
)
@settings(deadline=None, max_examples=100)
def test_any_step_is_what_the_account_says(
    model: ModelShape,
    kernel: str,
    dtype: Dtype,
    prompts: int,
    samples: int,
    context: int,
    decoded: int,
) -> None:
    """Whatever the model's small print; float32 with the kernels that are not flash."""
    if dtype == "fp32" and kernel not in UNFUSED:
        dtype = "bf16"
    work = Workload(
        prompts=prompts, samples=samples, context_tokens=context, decoded_tokens=decoded
    )
    check(model, kernel, work, dtype)


def test_sampling_is_the_same_in_both() -> None:
    """The account and the transformer keep as many of the likeliest tokens."""
    assert transformer.TOP_K == TOP_K
