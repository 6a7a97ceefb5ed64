"""What must lie in a GPU's memory."""

from typing import Any

import pytest
from builders import (
    REAL_MODELS,
    SLOTS,
    asked,
    by_name,
    deepseek_v3,
    llama_2_7b,
    llama_3_70b,
    mistral_7b,
    mixtral_8x7b,
    model,
    model_shapes,
    runs,
    setups,
    step_operations,
    windowed,
    workloads,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from simulator.counts.memory import (
    Memory,
    draft_bytes,
    kv_cache_bytes,
    memory,
    prefill_tokens_at_once,
    prefill_workspace_bytes,
    weights_bytes,
    workspace_bytes,
)
from simulator.counts.operation import total
from simulator.counts.transformer import decode_operations
from simulator.inputs.model import Experts, ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload


def _memory(shape: ModelShape, setup: Setup, work: Workload, *, prefill: bool = False) -> Memory:
    return memory(shape, setup, work, card_bytes=80e9, resident_blocks=SLOTS, prefill=prefill)


@pytest.mark.parametrize(
    ("capacity", "fits", "verdict"),
    [
        (107, True, "fits"),  # at the upper end it just fits
        (106, True, "too close to call"),
        (100, True, "too close to call"),
        (99, False, "too close to call"),
        (97, False, "too close to call"),
        (96, False, "does not fit"),  # not even at the lower end
    ],
)
def test_the_total_is_the_sum_of_its_parts(capacity: int, fits: bool, verdict: str) -> None:
    """It fits exactly up to the capacity, and surely where both ends of its interval do."""
    needs = Memory(
        weights_bytes=50,
        kv_bytes=25,
        workspace_bytes=15,
        reserve_bytes=10,
        capacity_bytes=capacity,
        less_bytes=3,
        more_bytes=7,
    )
    assert (needs.low_bytes, needs.total_bytes, needs.high_bytes) == (97, 100, 107)
    assert (needs.free_bytes, needs.fits, needs.verdict) == (capacity - 100, fits, verdict)


@pytest.mark.parametrize(
    ("attention", "layout", "tokens"),
    [
        ("standard", "copies", 2 * 16 * (8192 + 64)),
        ("standard", "shared", 2 * (8192 + 16 * 64)),
        ("standard", "rebuilt", 2 * (8192 + 16 * 64)),
        ("bifurcated", "copies", 2 * (8192 + 16 * 64)),
        ("bifurcated", "shared", 2 * (8192 + 16 * 64)),
    ],
)
def test_stored_tokens_follow_the_layout(attention: str, layout: str, tokens: int) -> None:
    """Two prompts of 16 samples: 131,072 bytes a token of Mistral-7B, a context copy or one."""
    setup, work = asked(attention=attention, kv_layout=layout, prompts=2)
    assert kv_cache_bytes(mistral_7b(), setup, work) == tokens * 131_072


def test_a_rebuilt_cache_needs_room_for_its_copies() -> None:
    """One layer's concatenated cache lies beside the stored one: 4096 bytes a token."""
    one_token = Setup(attention="standard", max_batched_tokens=1)
    rebuilt, shared = (
        _memory(mistral_7b(), one_token.but(kv_layout=layout), Workload())
        for layout in ("rebuilt", "shared")
    )
    copies = 16 * (8192 + 64) * 4096
    assert rebuilt.workspace_bytes - shared.workspace_bytes == copies


def test_a_window_is_all_that_is_kept() -> None:
    """Once a sample's own tokens fill the window, the context is gone from those layers."""
    setup = Setup(attention="bifurcated")
    work = Workload(context_tokens=8192, decoded_tokens=5000, samples=3)
    windows, whole = 3 * 4096, 8192 + 3 * 5000
    assert kv_cache_bytes(windowed(), setup, work) == 8192 * 21 * (windows + whole)


@given(setups(kernel=st.sampled_from(["ideal", "flash"])), workloads(query_tokens=1))
def test_what_is_stored_is_what_a_step_reads(setup: Setup, work: Workload) -> None:
    """Copies under standard attention, and one context under bifurcated, are read just once."""
    if setup.attention == "standard":
        setup = setup.but(kv_layout="copies")
    for shape in (mistral_7b(), windowed()):
        read = total(decode_operations(shape, setup, work, resident_blocks=SLOTS)).kv_bytes_read
        assert kv_cache_bytes(shape, setup, work) == read


@given(model_shapes(latent=False), st.sampled_from(["bf16", "fp8", "int4"]))
def test_a_step_reads_no_weights_that_are_not_there(shape: ModelShape, dtype: str) -> None:
    """With all experts visited, the matrices read fit in the weights held, on any rank."""
    for ranks in [size for size in (1, 2, 5, 16) if shape.heads % size == 0]:
        if shape.kv_heads % ranks and ranks % shape.kv_heads:
            continue
        work = {"weight_dtype": dtype, "tensor_parallel": ranks}
        operations = step_operations(shape, samples=10**6, context_tokens=0, **work)
        rows = by_name(operations[:1])["embedding"].weight_bytes_read
        # Narrow-table matrices, routers and small biases are copied to ranks in 16 bits.
        slack = 2 * (
            2 * (shape.embedding_size or 0) * shape.hidden_size
            + shape.layers * 20 * (shape.hidden_size + shape.intermediate_size)
            + shape.vocab_size
        )
        held = weights_bytes(shape, Setup(**work))
        assert total(operations).weight_bytes_read - rows <= held + slack


@pytest.mark.parametrize(
    ("shape", "ranks"),
    [(deepseek_v3(), 8), (llama_3_70b(), 8), (llama_3_70b(), 16), (mixtral_8x7b(), 8)],
    ids=lambda value: getattr(value, "name", value),
)
def test_ranks_hold_what_they_read(shape: ModelShape, ranks: int) -> None:
    """Down-projections of MLA, routers and KV heads that every rank needs are held by each."""
    work = {"tensor_parallel": ranks, "weight_dtype": "bf16"}
    operations = step_operations(shape, samples=10**6, context_tokens=0, **work)
    rows = by_name(operations[:1])["embedding"].weight_bytes_read
    read = total(operations).weight_bytes_read - rows
    tables = shape.vocab_size * shape.hidden_size * 2 / ranks
    norms = 2 * shape.hidden_size * (2 * shape.layers + 1)
    if shape.latent is not None:
        norms += 2 * shape.layers * (512 + 1536)
    assert weights_bytes(shape, Setup(**work)) == pytest.approx(read + tables + norms)


def test_logits_decide_the_workspace_of_a_wide_vocabulary() -> None:
    """128 samples' float32 logits of 256,000 tokens, and the hidden vectors they come from."""
    setup, work = Setup(kernel="ideal"), Workload(samples=128, context_tokens=10)
    expected = 128 * (256_000 * 4 + 3584 * 2)
    assert workspace_bytes(windowed(), setup, work, resident_blocks=SLOTS) == expected


def test_flash_keeps_no_logits_and_einsum_does() -> None:
    """Two passes' logits: 64 samples x 32 heads x (32,768 + 64) x 2 bytes, twice."""
    setup = Setup(attention="bifurcated", max_batched_tokens=1)
    work = Workload(samples=64, context_tokens=32768)
    flash, einsum = (
        _memory(llama_2_7b(), setup.but(kernel=kernel), work) for kernel in ("flash", "einsum")
    )
    # Partials of split-KV: 264 blocks of 64 rows of 129 float32 values.
    partials = 264 * 64 * 129 * 4
    logits = 2 * 64 * 32 * (32768 + 64) * 2
    assert einsum.workspace_bytes - flash.workspace_bytes == logits - partials


def test_the_math_path_copies_the_cache_in_plain_pytorch() -> None:
    """Mistral-7B: a layer's 2 x 8 x 128 values a token in float32; 4 times as many; keys scaled.

    Values a token: 2048 cast, 8192 repeated, 4096 of the keys scaled. Logits of 32 heads, twice, in
    float32 where einsum's are in bf16.
    """
    setup = Setup(attention="standard", execution="eager")
    math, einsum = (
        _memory(mistral_7b(), setup.but(kernel=kernel), Workload(samples=16))
        for kernel in ("sdpa_math", "einsum")
    )
    values = 2048 + 8192 + 4096
    per_token = values * 4 + 2 * 32 * (4 - 2)
    assert math.workspace_bytes - einsum.workspace_bytes == 16 * (8192 + 64) * per_token


@pytest.mark.parametrize(
    ("tree", "outputs"),
    [
        ("", 2),  # context and own tokens
        ("system=4,problem=3x2", 3),  # both levels, own tokens
        ("system=4,examples=5x2,problem=3x2", 4),
        ("system=4+examples=5x2,problem=3x2", 3),  # the upper levels are read together
        ("system=4+problem=3x2", 2),
        ("system=4+problem=3x2+", 2),  # all is read at once: as much as standard attention has
    ],
)
def test_every_part_of_a_tree_has_an_output_of_its_own(tree: str, outputs: int) -> None:
    """Bifurcated attention merges one output for each part that it reads apart.

    Of 4 heads of 2 values, 2 bytes each: 16 bytes for a token's queries, and 16 for each output.
    Beside them a token has two hidden vectors of 8 values and gate and up of 16 each: 96 bytes.
    """
    shape = model(vocab_size=16)  # so few that logits do not decide
    sizes: dict[str, Any] = {"tree": tree} if tree else {"context_tokens": 7}
    for attention, found in (("bifurcated", outputs), ("standard", 2)):
        setup = Setup(attention=attention, kernel="ideal")
        work = Workload(samples=3, decoded_tokens=2, **sizes)
        tokens = work.prompts * 3
        expected = tokens * (96 + 16 + 16 * found)
        assert workspace_bytes(shape, setup, work, resident_blocks=SLOTS) == expected
        # Flash keeps split-KV partials too: in 264 blocks 64 rows of 2 values and a log-sum-exp.
        flash = setup.but(kernel="flash")
        partials = 264 * 64 * (2 + 1) * 4
        assert workspace_bytes(shape, flash, work, resident_blocks=SLOTS) == expected + partials


@given(st.sampled_from(REAL_MODELS), setups(), workloads())
def test_bifurcated_never_needs_more_than_copies(
    shape: ModelShape, setup: Setup, work: Workload
) -> None:
    """One context instead of one for each sample; equal for a single sample."""
    assume(runs(shape, setup))
    bifurcated, standard = (
        _memory(shape, setup.but(attention=attention, kv_layout="copies"), work)
        for attention in ("bifurcated", "standard")
    )
    assert bifurcated.total_bytes <= standard.total_bytes
    if work.samples == 1:
        assert bifurcated.kv_bytes == standard.kv_bytes


@given(st.sampled_from(REAL_MODELS), setups(kernel="flash"), workloads())
def test_memory_grows_with_samples_and_context(
    shape: ModelShape, setup: Setup, work: Workload
) -> None:
    """One more of either never needs less: a limit found by halving is the limit."""
    now = _memory(shape, setup, work).total_bytes
    for field in ("samples", "context_tokens", "decoded_tokens", "prompts"):
        more = work.but(**{field: getattr(work, field) + 1})
        assert _memory(shape, setup, more).total_bytes >= now


@pytest.mark.parametrize(
    ("shape", "ranks", "values"),
    [
        # Residual and norm; of gate, up and product a quarter.
        (llama_3_70b(), 4, 2 * 8192 + 3 * 28672 / 4),
        # Of two experts gate, up, product and output.
        (mixtral_8x7b(), 1, 2 * 4096 + 2 * (3 * 14336 + 4096)),
        # Of eight experts likewise, and the shared expert's output.
        (deepseek_v3(), 1, 2 * 7168 + 8 * (3 * 2048 + 7168) + 7168),
        # Over 8 GPUs each holds an eighth of the inner tensors, and all of the hidden ones.
        (deepseek_v3(), 8, 2 * 7168 + 8 * (3 * 2048 / 8 + 7168) + 7168),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_prefill_holds_what_its_widest_block_makes(
    shape: ModelShape, ranks: int, values: float
) -> None:
    """Values of 2 bytes a token, counted by hand."""
    setup = Setup(tensor_parallel=ranks)
    for tokens in (8192, 5000):
        needed = prefill_workspace_bytes(shape, setup, Workload(), tokens=tokens)
        assert needed == 2 * tokens * values


@pytest.mark.parametrize("prefill", [False, True])
def test_an_engine_has_room_for_its_largest_batch(prefill: bool) -> None:
    """Mistral-7B: 2 hidden vectors and gate, up and product, 2 bytes each, whatever is asked.

    8192 tokens on a card of 80 GB; from 2048 to 16,384 if nobody says; as said otherwise.
    """
    per_token = 2 * (2 * 4096 + 3 * 14336)
    short = Workload(context_tokens=100, samples=1)
    unsaid = _memory(mistral_7b(), Setup(), short, prefill=prefill)
    said = _memory(mistral_7b(), Setup(max_batched_tokens=4096), short, prefill=prefill)
    assert unsaid.workspace_bytes == 8192 * per_token
    assert said.workspace_bytes == 4096 * per_token
    assert unsaid.less_bytes - said.less_bytes == pytest.approx((8192 - 2048) * per_token)
    assert unsaid.more_bytes - said.more_bytes == pytest.approx((16384 - 8192) * per_token)
    step = _memory(mistral_7b(), Setup(execution="eager"), short)
    assert step.workspace_bytes < 100 * per_token


def test_each_engine_shares_the_card_in_its_own_way() -> None:
    """Bytes left for caches, by the documents of each engine.

    vLLM: share of the card, less all else. SGLang: share of what is there before loading, less
    weights, but no more than the rest of the card. TensorRT-LLM: share of what all else leaves.
    """
    kept = 1.6 * 2**30
    for share in (0.5, 0.9, 1.0):
        left = {}
        for engine in ("vllm", "sglang", "trtllm"):
            setup = Setup(engine=engine, gpu_memory_utilization=share)
            needs = _memory(mistral_7b(), setup, Workload(samples=1))
            left[engine] = needs.free_bytes + needs.kv_bytes
        weights, work = needs.weights_bytes, needs.workspace_bytes
        assert left["vllm"] == pytest.approx(share * 80e9 - weights - work - kept)
        rest = 80e9 - weights - work - kept
        assert left["sglang"] == pytest.approx(min(share * (80e9 - kept) - weights, rest))
        assert left["trtllm"] == pytest.approx(share * rest)


def test_a_prefill_of_a_tree_takes_each_node_once() -> None:
    """A system prompt of 1000 tokens above 3 problems of 500: 2500 tokens, whole prompts 4500."""
    tree = Workload(tree="system=1000,problem=500x3")
    copies, once = (Setup(kv_layout=layout, execution="eager") for layout in ("copies", "shared"))
    per_token = 2 * (3 * 4096 + 3 * 14336)
    for setup, tokens in ((once, 2500), (copies, 4500)):
        assert prefill_tokens_at_once(setup, tree, 80e9) == (tokens, tokens, tokens)
        needs = _memory(mistral_7b(), setup, tree, prefill=True)
        assert needs.workspace_bytes == tokens * per_token


def test_logits_of_many_short_prompts_decide_the_prefill() -> None:
    """1000 prompts of one token: a float32 for each of 256,000 tokens of the vocabulary."""
    work = Workload(prompts=1000, context_tokens=1)
    needed = prefill_workspace_bytes(windowed(), Setup(), work, tokens=1000)
    assert needed == 1000 * 256_000 * 4


@given(st.sampled_from(REAL_MODELS), setups(), workloads())
def test_a_request_needs_no_less_than_its_last_step(
    shape: ModelShape, setup: Setup, work: Workload
) -> None:
    """Weights and caches are the step's, the workspace is the larger of the two.

    An engine has room for its largest batch in either.
    """
    assume(runs(shape, setup))
    step, request = (_memory(shape, setup, work, prefill=prefill) for prefill in (False, True))
    assert (request.weights_bytes, request.kv_bytes) == (step.weights_bytes, step.kv_bytes)
    tokens, *_ = prefill_tokens_at_once(setup, work, 80e9)
    prefill = prefill_workspace_bytes(shape, setup, work, tokens=tokens)
    assert request.workspace_bytes == max(step.workspace_bytes, prefill)
    if setup.graph:
        assert request == step


@pytest.mark.parametrize(
    ("changes", "ranks", "values"),
    [
        ({}, 1, 2 * 8 + 2 * 37 + 3 * 8),
        ({"gated_mlp": False}, 1, 2 * 8 + 37 + 3 * 8),
        ({}, 2, 2 * 8 + 37 + 3 * 4),
        ({"intermediate_size": 40}, 1, 2 * 8 + 2 * 40 + 3 * 8),  # a dense layer's is wider
    ],
)
def test_a_token_holds_what_all_its_experts_make(
    changes: dict[str, Any], ranks: int, values: int
) -> None:
    """Two hidden vectors of 8, up and gate of 2 x 16 + 5 values, queries and two outputs of 8."""
    experts = Experts(count=4, per_token=2, intermediate_size=16, shared_intermediate_size=5)
    shape = model(experts=experts, vocab_size=16, **changes)
    setup = Setup(kernel="ideal", tensor_parallel=ranks)
    needed = workspace_bytes(shape, setup, Workload(samples=3), resident_blocks=SLOTS)
    assert needed == 3 * 2 * values


@pytest.mark.parametrize(("ranks", "values"), [(1, 3 * 40), (2, 3 * 20)])
def test_a_wide_shared_expert_decides_the_prefill(ranks: int, values: int) -> None:
    """Two hidden vectors of 8 and gate, up and product of 40, more than an expert's 3 x 16 + 8."""
    experts = Experts(count=4, per_token=1, intermediate_size=16, shared_intermediate_size=40)
    setup, shape = Setup(tensor_parallel=ranks), model(experts=experts)
    needed = prefill_workspace_bytes(shape, setup, Workload(), tokens=100)
    assert needed == 100 * 2 * (2 * 8 + values)


def test_biases_keep_16_bits_and_a_compressed_query_is_on_every_rank() -> None:
    """By hand for Llama-2-7B with biases, and with queries from a vector of 1024 values."""
    layers, d = 32, 4096
    plain = weights_bytes(llama_2_7b(), Setup(weight_dtype="int4"))
    biased = weights_bytes(llama_2_7b().but(qkv_bias=True), Setup(weight_dtype="int4"))
    assert biased - plain == layers * 3 * d * 2
    narrow = llama_2_7b().but(query_rank=1024)
    one, four = (weights_bytes(narrow, Setup(tensor_parallel=ranks)) for ranks in (1, 4))
    tables, norms = 2 * 32_000 * d * 2, (2 * layers + 1) * d * 2 + layers * 1024 * 2
    down, up, rest = d * 1024, 1024 * d, 3 * d * d + 3 * d * 11008
    assert one == tables + norms + 2 * layers * (down + up + rest)
    assert four == tables / 4 + norms + 2 * layers * (down + (up + rest) / 4)


def test_biases_of_experts_are_divided_with_them() -> None:
    """Over two data-parallel groups each holds half: 8 experts of 2 x 14336 and 4096 biases."""
    shape = mixtral_8x7b()
    biased = shape.but(experts=shape.experts and shape.experts.but(expert_bias=True))
    setup = Setup(data_parallel=2, expert_parallel=2)
    more = weights_bytes(biased, setup) - weights_bytes(shape, setup)
    assert more == 32 * 8 * (2 * 14336 + 4096) * 2 / 2


def test_layers_that_draft_are_held_like_the_others() -> None:
    """By hand for Mixtral with one more layer: experts are divided over all GPUs of both groups.

    Every GPU has the norms, the router, and the matrix that joins two hidden states.
    """
    shape, d = mixtral_8x7b().but(draft_layers=1), 4096
    attention, experts = 2 * d * d + 2 * d * 1024, 8 * 3 * d * 14336
    whole = 2 * d + 8 * d + 2 * d * d + 3 * d
    for groups, ranks in ((1, 1), (2, 1), (2, 4)):
        setup = Setup(data_parallel=groups, tensor_parallel=ranks, expert_parallel=groups * ranks)
        held = attention / ranks + experts / (groups * ranks) + whole
        assert draft_bytes(shape, setup) == 2 * held
    plain, drafting = (
        _memory(shape, Setup(data_parallel=2), Workload(prompts=2, query_tokens=tokens))
        for tokens in (1, 2)
    )
    more = drafting.weights_bytes - plain.weights_bytes
    assert more == draft_bytes(shape, Setup(data_parallel=2))
