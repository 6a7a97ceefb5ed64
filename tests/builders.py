"""Models, GPUs and questions that several test files share, and hypothesis strategies of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from simulator.counts.attention.registry import algorithms, find_way
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation
from simulator.counts.transformer import attention_shape as shape_in_model
from simulator.counts.transformer import decode_operations
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import Experts, LatentAttention, LayerGroup, LayerInputs, ModelShape
from simulator.inputs.record import Frozen
from simulator.inputs.setup import ATTENTIONS, EXECUTIONS, KV_LAYOUTS, Setup
from simulator.inputs.workload import Workload

SLOTS = 264  # thread blocks an H100 runs at once: 2 x 132 SMs

# Fitted constants that make every rate of round_gpu() a round number.
ROUND_CONSTANTS = {
    "bandwidth_fraction": 0.5,  # 1000 GB/s
    "flops_fraction": 0.5,  # bf16 250 TFLOP/s
    "block_gb_per_s": 10,
    "l2_gb_per_s": 80,  # 8000 GB/s of 100 SMs
    "l2_fraction": 0.5,  # 25 MiB
    "l2_stream_gb_per_s": 160,  # 16000 GB/s of 100 SMs
    "launch_us": 2,
    # Without effect: tests/timing/test_serial.py has their own tests.
    "block_us": 1e-9,
    "sequence_us": 1e-9,
    "group_us": 1e-9,
    "visit_us": 1e-9,
    "group_start_k": 512,
    "split_us": 1e-9,
    "tile_gb_per_s": 1e9,
    "split_k_us": 1e-9,
    "overlap": 16,  # the slower roof alone counts
    "eager_launch_us": 1,
    "host_us_per_launch": 10,
    "link_fraction": 0.5,  # 200 GB/s
    # Without effect: tests/timing/test_collectives.py has their own tests.
    "hop_us": 1e-9,
    "exchange_us": 1e-9,
    "chunk_us": 1e-15,
    # Of 8-bit kernels one each, so that what others carry over does not come before the rest.
    "fp8_gemm_launch_us": 2,
    "fp8_attention_launch_us": 2,
}


def gpu(
    constants: Mapping[str, float] | None = None,
    *,
    architecture: str = "Nowhere NW100",
    measured: Mapping[str, float] | None = None,
    price: float | None = None,
    terms: Mapping[str, Any] | None = None,
    name: str = "round",
    **peak: float | None,
) -> HardwareProfile:
    """Return a GPU of round figures, ``constants`` fitted to it; None leaves a figure out.

    ``terms`` are further fields of its price.
    """
    figures: dict[str, float | None] = {
        "memory_gb": 80,
        "memory_bandwidth_gb_per_s": 2000,
        "fp32_tflops": 50,
        "fp16_tflops": 500,
        "bf16_tflops": 500,
        "fp8_tflops": 1000,
        "int8_tops": 1000,
        "l2_mib": 50,
        "sm_count": 100,
        "link_gb_per_s_per_direction": 400,
        "tdp_w": 500,
        **peak,
    }

    # Its driver reports what is published, a round number of bytes.
    read = {"memory_mib": (figures["memory_gb"] or 0) * 1e9 / 2**20, **(measured or {})}

    def figure(value: float) -> dict[str, Any]:
        return {"value": value, "source": "made up"}

    return HardwareProfile.read(
        {
            "schema_version": 1,
            "id": name,
            "name": name.title(),
            "vendor": "NVIDIA",
            "architecture": architecture,
            "compute_capability": "8.0",
            "memory_type": "HBM",
            "confidence": "C",
            "retrieved": "never",
            "peak": {key: figure(value) for key, value in figures.items() if value is not None},
            "measured": {key: figure(value) for key, value in read.items()},
            "fitted": {key: figure(value) for key, value in (constants or {}).items() if value},
            "price_usd_per_hour": None if price is None else {**figure(price), **(terms or {})},
        }
    )


def round_gpu(**peak: Any) -> HardwareProfile:
    """Return the GPU whose achieved rates are all round: see ROUND_CONSTANTS."""
    return gpu(ROUND_CONSTANTS, **peak)


def model(**changes: Any) -> ModelShape:
    """Return a small model, changed where the test cares."""
    sizes: dict[str, Any] = {
        "name": "tiny",
        "layers": 2,
        "hidden_size": 8,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 2,
        "intermediate_size": 16,
        "vocab_size": 32,
    }
    return ModelShape(**{**sizes, **changes})


def llama_2_7b(**changes: Any) -> ModelShape:
    """Return Llama-2-7B, multi-head."""
    sizes: dict[str, Any] = {
        "name": "Llama-2-7B",
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "kv_heads": 32,
        "head_dim": 128,
        "intermediate_size": 11008,
        "vocab_size": 32000,
    }
    return ModelShape(**{**sizes, **changes})


def mistral_7b(**changes: Any) -> ModelShape:
    """Return Mistral-7B without its sliding window (v0.2): 8 KV heads."""
    return llama_2_7b(
        **{"name": "Mistral-7B", "kv_heads": 8, "intermediate_size": 14336, **changes}
    )


def llama_3_8b_attention(
    samples: int, context_tokens: int, *, resident_blocks: int
) -> AttentionShape:
    """Return one layer's attention of Llama-3.1-8B, with 64 own tokens, in bf16."""
    return AttentionShape(
        prompts=1,
        samples=samples,
        query_tokens=1,
        context_tokens=context_tokens,
        decoded_tokens=64,
        heads=32,
        kv_heads=8,
        key_width=128,
        value_width=128,
        cache_width=2048,
        activation_bytes=2,
        kv_bytes=2,
        dtype="bf16",
        resident_blocks=resident_blocks,
    )


def llama_3_70b() -> ModelShape:
    """Return Llama-3-70B: 64 heads, 8 KV heads."""
    return ModelShape(
        name="Llama-3-70B",
        layers=80,
        hidden_size=8192,
        heads=64,
        kv_heads=8,
        head_dim=128,
        intermediate_size=28672,
        vocab_size=128256,
    )


def mixtral_8x7b() -> ModelShape:
    """Return Mixtral-8x7B: every token visits 2 of 8 experts."""
    return mistral_7b(
        name="Mixtral-8x7B", experts=Experts(count=8, per_token=2, intermediate_size=14336)
    )


def deepseek_v3() -> ModelShape:
    """Return DeepSeek-V3: a latent cache, 3 dense layers, then 58 with experts."""
    return ModelShape(
        name="DeepSeek-V3",
        layers=61,
        hidden_size=7168,
        heads=128,
        kv_heads=128,
        head_dim=192,
        intermediate_size=18432,
        vocab_size=129280,
        layer_groups=(LayerGroup(count=3), LayerGroup(count=58, mlp="experts")),
        experts=Experts(
            count=256, per_token=8, intermediate_size=2048, shared_intermediate_size=2048
        ),
        latent=LatentAttention(
            kv_rank=512, rope_dim=64, query_rank=1536, nope_dim=128, value_dim=128
        ),
    )


def windowed(window: int = 4096, **changes: Any) -> ModelShape:
    """Return a Gemma-2-9B shape: every other layer sees ``window`` tokens only."""
    sizes: dict[str, Any] = {
        "name": "Gemma-2-9B",
        "layers": 42,
        "hidden_size": 3584,
        "heads": 16,
        "kv_heads": 8,
        "head_dim": 256,
        "intermediate_size": 14336,
        "vocab_size": 256000,
        "tied_embeddings": True,
        "norms_per_layer": 4,
        "layer_groups": (LayerGroup(count=21, window=window), LayerGroup(count=21)),
    }
    return ModelShape(**{**sizes, **changes})


def gemma_4_e2b() -> ModelShape:
    """Return Gemma-4-E2B: windows, wider heads, shared caches, wider MLPs, per-layer inputs."""
    windowed = LayerGroup(count=12, window=512)
    full = LayerGroup(count=3, head_dim=512)
    shared = {"kv": "earlier", "intermediate_size": 12_288}
    return ModelShape(
        name="Gemma-4-E2B",
        layers=35,
        hidden_size=1536,
        heads=8,
        kv_heads=1,
        head_dim=256,
        intermediate_size=6144,
        vocab_size=262_144,
        tied_embeddings=True,
        norms_per_layer=4,
        qk_norm="head",
        layer_inputs=LayerInputs(rows=262_144, width=256),
        layer_groups=(
            windowed,
            full,
            windowed.but(**{**shared, "count": 16}),
            full.but(**{**shared, "count": 4}),
        ),
    )


def mimo_v2() -> ModelShape:
    """Return MiMo-V2-Flash: KV heads by layer, values narrower than keys, sinks in windows."""
    full = LayerGroup(count=1)
    return ModelShape(
        name="MiMo-V2-Flash",
        layers=48,
        hidden_size=4096,
        heads=64,
        kv_heads=4,
        head_dim=192,
        value_dim=128,
        intermediate_size=16_384,
        vocab_size=152_576,
        experts=Experts(count=256, per_token=8, intermediate_size=2048),
        layer_groups=(
            full,
            LayerGroup(count=39, window=129, kv_heads=8, vectors=64, mlp="experts"),
            full.but(count=8, mlp="experts"),
        ),
    )


def attention_only(heads: int, kv_heads: int, head_dim: int = 128) -> ModelShape:
    """Return one layer whose attention matters and nothing else."""
    return model(
        name=f"{heads} heads, {kv_heads} KV heads",
        layers=1,
        hidden_size=heads * head_dim,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
    )


REAL_MODELS = (
    *(llama_2_7b(), mistral_7b(), mixtral_8x7b(), deepseek_v3(), windowed()),
    *(gemma_4_e2b(), mimo_v2()),
)


def without(record: Frozen, *names: str) -> dict[str, Any]:
    """Return the fields of a record but for some."""
    return {name: value for name, value in record.as_dict().items() if name not in names}


def asked(**settings: Any) -> tuple[Setup, Workload]:
    """Return a question: how a step is run, and its sizes."""
    sizes = {name: settings.pop(name) for name in Workload.fields if name in settings}
    return Setup(**settings), Workload(**sizes)


def step_operations(
    shape: ModelShape, *, resident: int = SLOTS, **settings: Any
) -> list[Operation]:
    """Return the operations of a decode step of a question."""
    return decode_operations(shape, *asked(**settings), resident_blocks=resident)


def by_name(operations: Sequence[Operation]) -> dict[str, Operation]:
    """Return operations by their names, which must not repeat."""
    named = {operation.name: operation for operation in operations}
    assert len(named) == len(operations)
    return named


def attention_shape(sizes: Sequence[int], *, resident: int, element: int = 2) -> AttentionShape:
    """Return a layer's attention: prompts, samples, KV heads, group, width, context, decoded."""
    prompts, samples, kv_heads, group, width, context, own = sizes
    return AttentionShape(
        prompts=prompts,
        samples=samples,
        query_tokens=1,
        context_tokens=context,
        decoded_tokens=own,
        heads=kv_heads * group,
        kv_heads=kv_heads,
        key_width=width,
        value_width=width,
        cache_width=2 * kv_heads * width,
        activation_bytes=element,
        kv_bytes=element,
        dtype="fp32" if element == 4 else "bf16",
        resident_blocks=resident,
    )


def latent_shape(
    prompts: int, samples: int, heads: int, context: int, own: int, **widths: int
) -> AttentionShape:
    """Return the sizes of latent attention in its mixed form, in bf16.

    Parameters
    ----------
    widths
        Those without rotary part, with it, of the latent vector and of values: ``nope``, ``rope``,
        ``rank``, ``value``; and the number of ``groups``.
    """
    latent = LatentAttention(
        groups=widths.get("groups", 1),
        kv_rank=widths["rank"],
        rope_dim=widths["rope"],
        nope_dim=widths["nope"],
        value_dim=widths["value"],
    )
    return shape_in_model(
        deepseek_v3().but(heads=heads, kv_heads=heads, latent=latent),
        Setup(attention="bifurcated", latent_form="mixed"),
        Workload(prompts=prompts, samples=samples, context_tokens=context, decoded_tokens=own),
        None,
        resident_blocks=264,
    )


def as_traced(operations: list[Operation]) -> list[Operation]:
    """Return operations as a trace sees them.

    A kernel that another launches inside one library call, such as the combine of split-KV, is
    folded into that call, and what passes between the two disappears. Where samples read one stored
    context again, a trace counts the storage touched. What is not launched is left out.
    """
    inner = {operation.within: operation for operation in operations if operation.within}
    seen = []
    for operation in operations:
        if operation.within or not operation.launches:
            continue
        within = inner.get(operation.name)
        written = operation.bytes_written
        if within is not None and within.launches:
            written = written - operation.scratch_bytes + within.bytes_written
        read = operation.bytes_read - operation.reused_bytes
        seen.append(replace(operation, bytes_read=read, bytes_written=written))
    return seen


def drawn_layers(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what layers of a model may have or not."""
    flags = ("gated_mlp", "rotary", "qkv_bias", "output_bias", "mlp_bias", "lm_head_bias")
    return {
        **{name: draw(st.booleans()) for name in (*flags, "tied_embeddings")},
        "norm": draw(st.sampled_from(["rms", "layer"])),
        "norms_per_layer": draw(st.sampled_from([0, 1, 2, 4])),
        "extra_norms": draw(st.integers(0, 1)),
        "qk_norm": draw(st.sampled_from(["none", "head", "all"])),
        "position_embeddings": draw(st.sampled_from([0, 2048])),
        "embedding_size": draw(st.sampled_from([None, 40])),
    }


@st.composite
def model_shapes(draw: st.DrawFn, *, latent: bool = True) -> ModelShape:
    """Draw a model: any grouping of heads, dense or experts, windows, MLA, and the small print."""
    kv_heads = draw(st.sampled_from([1, 2, 3, 8]))
    heads = kv_heads * draw(st.sampled_from([1, 2, 5, 8]))
    layers = draw(st.integers(1, 4))
    changes: dict[str, Any] = {}
    if draw(st.booleans()):
        per_token = draw(st.integers(1, 3))
        changes["experts"] = Experts(
            count=draw(st.integers(per_token, 16)),
            per_token=per_token,
            intermediate_size=draw(st.sampled_from([32, 96])),
            shared_intermediate_size=draw(st.sampled_from([0, 64])),
            shared_gate=draw(st.booleans()),
            router_bias=draw(st.booleans()),
            expert_bias=draw(st.booleans()),
        )
    sparse = "experts" in changes
    dense = draw(st.integers(0, layers - 1)) if sparse else layers
    changes["layer_groups"] = tuple(
        LayerGroup(
            count=count,
            mlp="experts" if experts else "dense",
            window=draw(st.sampled_from([None, 64, 1000])),
        )
        for count, experts in ((dense, False), (layers - dense, True))
        if count
    )
    if latent and draw(st.booleans()):
        changes["latent"] = LatentAttention(
            kv_rank=draw(st.sampled_from([32, 512])),
            rope_dim=draw(st.sampled_from([16, 64])),
            groups=draw(st.sampled_from([1, kv_heads])),
            query_rank=draw(st.sampled_from([None, 48])),
            nope_dim=32,
            value_dim=draw(st.sampled_from([32, 64])),
        )
    return model(
        name="drawn",
        layers=layers,
        hidden_size=draw(st.sampled_from([64, 256])),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([16, 64, 128])),
        intermediate_size=draw(st.sampled_from([128, 500])),
        vocab_size=draw(st.sampled_from([100, 32000])),
        **drawn_layers(draw),
        **changes,
    )


# Around the places where something changes: query tiles of 64 rows, split-KV parts of 256 tokens.
SAMPLES = st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 129, 264, 265, 1000, 4096]))
CONTEXTS = st.one_of(
    st.sampled_from([0, 1, 255, 256, 257, 511, 512, 513, 8192, 32768]), st.integers(0, 20000)
)
DECODED = st.one_of(st.sampled_from([0, 1, 64, 256, 257]), st.integers(0, 3000))


FORMATS = st.sampled_from(["bf16", "fp16", "fp32", "fp8", "int8", "int4"])


def setups(**fixed: Any) -> st.SearchStrategy[Setup]:
    """Draw how a step is run; ``fixed`` fields are as given, values or strategies."""
    drawn = {
        "attention": st.sampled_from(ATTENTIONS),
        "kernel": st.sampled_from((*algorithms(), "flashinfer")),
        "kv_layout": st.sampled_from(KV_LAYOUTS),
        "execution": st.sampled_from(EXECUTIONS),
        "weight_dtype": FORMATS,
        "kv_dtype": FORMATS,
    }
    return st.builds(Setup, **drawn | _strategies(fixed))


def workloads(**fixed: Any) -> st.SearchStrategy[Workload]:
    """Draw the sizes of a step; ``fixed`` ones are as given, values or strategies."""
    drawn = {
        "context_tokens": CONTEXTS,
        "samples": SAMPLES,
        "prompts": st.sampled_from([1, 1, 2, 5]),
        "decoded_tokens": DECODED,
        "query_tokens": st.sampled_from([1, 1, 4]),
    }
    return st.builds(Workload, **drawn | _strategies(fixed))


def _strategies(fixed: Mapping[str, Any]) -> dict[str, st.SearchStrategy[Any]]:
    return {
        name: value if isinstance(value, st.SearchStrategy) else st.just(value)
        for name, value in fixed.items()
    }


def runs(shape: ModelShape, setup: Setup) -> bool:
    """Return whether the kernel has a form for the model's cache and layers."""
    return not find_way(setup.kernel).refusal(shape, Workload())


@st.composite
def gpus(draw: st.DrawFn) -> HardwareProfile:
    """Draw a GPU, from a small inference card to beyond today's largest."""
    half = draw(st.sampled_from([65.0, 312, 989.4, 2500]))
    constants = {
        "bandwidth_fraction": draw(st.floats(0.5, 1)),
        "block_gb_per_s": draw(st.floats(5, 100)),
        "l2_gb_per_s": draw(st.floats(10, 100)),
        "l2_fraction": draw(st.floats(0.3, 1)),
        "launch_us": draw(st.floats(0.1, 10)),
    }
    return gpu(
        constants if draw(st.booleans()) else None,
        architecture=draw(st.sampled_from(["Hopper GH100", "Ampere GA100", "Nowhere"])),
        memory_bandwidth_gb_per_s=draw(st.sampled_from([300.0, 864, 2039, 8000])),
        fp16_tflops=half,
        bf16_tflops=draw(st.sampled_from([half, None])),
        fp8_tflops=draw(st.sampled_from([2 * half, None])),
        int8_tops=draw(st.sampled_from([2 * half, None])),
        fp32_tflops=half / 8,
        l2_mib=draw(st.sampled_from([4.0, 40, 126])),
        sm_count=draw(st.sampled_from([40.0, 108, 132, 304])),
    )
