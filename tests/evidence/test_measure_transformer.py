"""The plain transformer does what the accounts of a whole decode step count."""

import math

import pytest

torch = pytest.importorskip("torch")

from simulator.counts.operation import Operation  # noqa: E402
from simulator.counts.transformer import decode_operations  # noqa: E402
from simulator.errors import ModelError  # noqa: E402
from simulator.evidence.kernels import KERNELS  # noqa: E402
from simulator.evidence.measure.cells import StepCell  # noqa: E402
from simulator.evidence.measure.correctness import reference_attention, relative_error  # noqa: E402
from simulator.evidence.measure.steps import step_caches  # noqa: E402
from simulator.evidence.measure.transformer import TOP_K, Decoder, Sampler  # noqa: E402
from simulator.evidence.tracing import Trace, trace  # noqa: E402
from simulator.evidence.tracing.recorder import grouped, total  # noqa: E402
from simulator.inputs.model import LayerGroup, ModelShape  # noqa: E402
from simulator.inputs.presets import load_model  # noqa: E402
from simulator.inputs.workload import Workload  # noqa: E402

# Llama, grouped, biases, tied head, layer norm with positions, one norm, four norms and windows.
MODELS = [
    "llama-2-7b",
    "mistral-7b",
    "qwen2.5-0.5b",
    "llama-3.2-1b",
    "gpt2",
    "falcon-7b",
    "codegen-16b",
    "gemma-2-2b",
]
SAMPLES, CONTEXT, DECODED = 3, 200, 7
_IN_A_LAYER = {
    "attention_norm",
    "attention_post_norm",
    "attention_residual",
    "attention",
    "kv_write",
    "mlp_activation",
    "mlp_down",
    "mlp_norm",
    "mlp_post_norm",
    "mlp_residual",
    "mlp_up",
    "output_projection",
    "qk_norm",
    "qkv_projection",
    "rotary",
}


def few_layers(name: str) -> ModelShape:
    """A preset with one layer of each kind: layers are alike, and tracing all of them is slow."""
    model = load_model(name)
    groups = tuple(group.but(count=1) for group in model.layer_groups)
    return model.but(layers=len(groups), layer_groups=groups)


def meta(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor without values."""
    return torch.empty(shape, dtype=dtype, device="meta")


def step(model: ModelShape, kernel: str, dtype: str = "bf16") -> StepCell:
    """The step that is traced, or run."""
    return StepCell(
        model=model,
        kernel=kernel,
        dtype=dtype,
        samples=SAMPLES,
        context_tokens=CONTEXT,
        decoded_tokens=DECODED,
    )


def traced(model: ModelShape, kernel: str) -> Trace:
    """Trace one decode step on the meta device."""
    decoder = Decoder(model, dtype=torch.bfloat16, device="meta", position=CONTEXT)
    decoder.place(SAMPLES)
    caches = step_caches(step(model, kernel), meta)
    tokens = torch.empty(SAMPLES, dtype=torch.long, device="meta")
    return trace(lambda ids: decoder(ids, caches, KERNELS[kernel].function), tokens)


def by_operation(found: Trace) -> dict[str, list[float]]:
    """Sum a trace by the module below the layer: FLOPs, bytes read, bytes written, launches."""
    groups = grouped(
        found.operations,
        lambda operation: next(
            part
            for part in operation.module.split(".")
            if part not in ("Decoder", "layers") and not part.isdigit()
        ),
    )
    return {
        name: [each.flops, each.bytes_read, each.bytes_written, each.launches]
        for name, each in ((name, total(equal)) for name, equal in groups.items())
    }


def by_name(operations: list[Operation]) -> dict[str, list[float]]:
    """Sum an account in the same way: what is no module of its own is the attention kernel's."""
    modules = {"embedding", "final_norm", "lm_head", "sampling", *(_IN_A_LAYER - {"attention"})}
    sums: dict[str, list[float]] = {}
    for each in operations:
        name = each.name if each.name in modules else "attention"
        total = sums.setdefault(name, [0, 0, 0, 0])
        values = (each.flops, each.bytes_read, each.bytes_written, each.launches)
        sums[name] = [a + b * each.repeat for a, b in zip(total, values, strict=True)]
    return sums


def counted(model: ModelShape, kernel: str) -> dict[str, list[float]]:
    """The account of the same step."""
    setup = KERNELS[kernel].setup("bf16")
    work = Workload(context_tokens=CONTEXT, samples=SAMPLES, decoded_tokens=DECODED)
    return by_name(decode_operations(model, setup, work, resident_blocks=1))


@pytest.mark.parametrize("name", MODELS)
def test_a_traced_step_is_what_the_accounts_count(name: str) -> None:
    """Products, norms, attention, residuals, activations, cache writes: to the byte and launch.

    Rotary tables and sampling are below.
    """
    model = few_layers(name)
    found, account = by_operation(traced(model, "standard_flash")), counted(model, "standard_flash")
    assert set(found) == set(account)
    for operation in set(found) - {"rotary", "sampling"}:
        assert found[operation] == account[operation], operation


@pytest.mark.parametrize("name", ["llama-2-7b", "mistral-7b"])
@pytest.mark.parametrize(
    "kernel",
    [
        "standard_einsum",
        "standard_math",
        "standard_rebuilt",
        "bifurcated_einsum",
        "bifurcated_flash",
    ],
)
def test_attention_in_a_step_is_what_its_account_counts(name: str, kernel: str) -> None:
    """The kernel inside a whole step moves the bytes and makes the launches of the estimate."""
    model = few_layers(name)
    found = by_operation(traced(model, kernel))["attention"]
    assert found == counted(model, kernel)["attention"]


@pytest.mark.parametrize("name", ["llama-2-7b", "mistral-7b", "gemma-2-2b"])
@pytest.mark.parametrize("kernel", sorted(set(KERNELS) - {"bifurcated_flex"}))
def test_flops_of_a_step_are_equal_for_every_kernel(name: str, kernel: str) -> None:
    """FlexAttention, which computes whole blocks of its mask, is the one exception."""
    model = few_layers(name)
    wanted = sum(values[0] for values in counted(model, kernel).values())
    assert traced(model, kernel).flops == wanted


@pytest.mark.parametrize("kernel", ["standard_flash", "bifurcated_flash"])
def test_a_layer_with_a_window_attends_to_what_it_can_see(kernel: str) -> None:
    """With windows of 20 and 100 tokens a step does fewer FLOPs, those of the account."""
    groups = [LayerGroup(count=1, window=window) for window in (20, 100, None)]
    model = a_model(layers=3, layer_groups=groups)
    wanted = sum(values[0] for values in counted(model, kernel).values())
    assert traced(model, kernel).flops == wanted
    assert wanted < traced(a_model(layers=3), kernel).flops


@pytest.mark.parametrize("name", ["llama-2-7b", "mistral-7b"])
def test_rotary_takes_ten_launches_and_reads_its_tables(name: str) -> None:
    """Per layer: 5.5 passes in, 4.5 out, and the cosine and sine of one position, twice each."""
    model = few_layers(name)
    width = (model.heads + model.kv_heads) * model.head_dim
    row, tables = SAMPLES * width * 2, 4 * model.head_dim * 2
    found = by_operation(traced(model, "standard_flash"))["rotary"]
    per_layer = [0, 5.5 * row + tables, 4.5 * row, 10]
    assert found == [value * model.layers for value in per_layer]


def test_sampling_takes_eight_launches() -> None:
    """gpt-fast's: divide, top-k, compare, mask, softmax, noise, divide, argmax."""
    model = few_layers("llama-2-7b")
    logits, mask = SAMPLES * model.vocab_size * 2, SAMPLES * model.vocab_size
    pivots, likeliest, chosen = SAMPLES * 2, SAMPLES * TOP_K * (2 + 8), SAMPLES * 8
    found = by_operation(traced(model, "standard_flash"))["sampling"]
    assert found == [0, 8 * logits + mask + pivots, 5 * logits + mask + likeliest + chosen, 8]


def a_model(**changes: object) -> ModelShape:
    """A model small enough to run."""
    values: dict[str, object] = {
        "name": "small",
        "layers": 2,
        "hidden_size": 48,
        "heads": 6,
        "kv_heads": 2,
        "head_dim": 8,
        "intermediate_size": 64,
        "vocab_size": 97,
    }
    return ModelShape.read(values | changes)


VARIANTS = [
    {},
    {"kv_heads": 6},
    {"kv_heads": 1, "rotary": False, "gated_mlp": False, "position_embeddings": 400},
    {"norm": "layer", "norms_per_layer": 1, "qkv_bias": True, "mlp_bias": True},
    {"norms_per_layer": 4, "tied_embeddings": True, "qk_norm": "head"},
    {"qk_norm": "all", "embedding_size": 32, "output_bias": True, "lm_head_bias": True},
    {"norms_per_layer": 0, "extra_norms": 0, "layer_groups": [LayerGroup(count=2, window=20)]},
]


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_every_kernel_gives_the_same_logits(changes: dict[str, object], kernel: str) -> None:
    """In float32, with any kernel in its own layout, a step's logits are those of float64."""
    torch.manual_seed(0)
    model = a_model(**changes)
    decoder = Decoder(model, dtype=torch.float32, device="cpu", position=CONTEXT)
    caches = step_caches(
        step(model, kernel, "fp32"), lambda shape, dtype: torch.randn(shape).to(dtype)
    )
    wide = [(cache[0], *(part.double() for part in cache[1:])) for cache in caches]
    tokens = torch.tensor([3, 1, 96])
    with torch.no_grad():
        found = decoder.logits(tokens, caches, KERNELS[kernel].function)
        wanted = decoder.double().logits(tokens, wide, reference_attention)
    assert relative_error(found, wanted) < 1e-5


def test_the_new_token_is_in_the_cache_before_attention_reads_it() -> None:
    """The last place of the decoded part holds the step's own keys and values afterwards."""
    model = a_model(layers=1)
    decoder = Decoder(model, dtype=torch.float32, device="cpu", position=CONTEXT)
    cell = step(model, "bifurcated_flash", "fp32")
    (cache,) = step_caches(cell, lambda shape, _: torch.full(shape, math.nan))
    seen: list[torch.Tensor] = []

    def attend(query: torch.Tensor, *caches: torch.Tensor) -> torch.Tensor:
        seen.extend(part.clone() for part in caches)
        return torch.zeros_like(query)

    decoder(torch.tensor([1, 2, 3]), [cache], attend)
    for part in seen[2:]:
        assert torch.isfinite(part[:, :, :, -1]).all()
        assert torch.isnan(part[:, :, :, :-1]).all()


def test_samples_are_drawn_from_the_likeliest_tokens() -> None:
    """With top-k of one, sampling is greedy whatever the noise."""
    logits = torch.randn(50, 97)
    assert torch.equal(Sampler(top_k=1)(logits), logits.argmax(-1, keepdim=True))


@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v3"])
def test_models_that_cannot_be_built_say_so(name: str) -> None:
    """Mixtures of experts and latent caches are refused by name."""
    with pytest.raises(ModelError, match=name):
        Decoder(load_model(name), dtype=torch.bfloat16, device="meta", position=0)
