"""A whole decode step, every operation worked by hand.

The model: 2 layers, d = 8, h = 4 heads in g = 2 groups of width k = 2, gated MLP of 16, vocabulary
of 32; bf16, so 2 bytes an element and 4 bytes an element of both samples together. The question:
b = 2 samples of m_c = 4 context tokens with m_d = 3 own tokens each; a CUDA graph, so everything
that can be fused is.
"""

from builders import by_name, model, step_operations

from simulator.counts.operation import total

# name: (FLOPs, bytes read, bytes written, launches, repeat)
AROUND = {
    # reads a row of 8 for both (4 x 8) and two int64 ids (16); writes the rows (4 x 8)
    "embedding": (0, 32 + 16, 32, 1, 1),
    # reads input and residual (2 x 32) and the weights (8 x 2); writes the sum and the normed
    "attention_norm": (0, 64 + 16, 64, 1, 2),
    # 8 -> 4 x 2 + 2 x 2 x 2 = 16 columns: 2 x 2 tokens x 8 x 16 FLOPs; weights 8 x 16 x 2 bytes
    "qkv_projection": (512, 32 + 256, 64, 1, 2),
    # queries 8 and keys 4 of both samples, in place
    "rotary": (0, 48, 48, 1, 2),
    # keys 4 and values 4 of both samples
    "kv_write": (0, 32, 32, 1, 2),
    # 8 -> 8: 2 x 2 x 8 x 8; weights 8 x 8 x 2
    "output_projection": (256, 32 + 128, 32, 1, 2),
    "mlp_norm": (0, 64 + 16, 64, 1, 2),
    # gate and up at once, 8 -> 32: 2 x 2 x 8 x 32; weights 8 x 32 x 2
    "mlp_up": (1024, 32 + 512, 128, 1, 2),
    # reads gate and up (2 x 4 x 16), writes their product
    "mlp_activation": (0, 128, 64, 1, 2),
    # 16 -> 8: 2 x 2 x 16 x 8; weights 16 x 8 x 2
    "mlp_down": (512, 64 + 256, 32, 1, 2),
    "final_norm": (0, 64 + 16, 64, 1, 1),
    # 8 -> 32: as mlp_up
    "lm_head": (1024, 32 + 512, 128, 1, 1),
    # softmax: reads bf16 logits (4 x 32), writes float32 (2 x 32 x 4); the choice reads them and
    # writes two int64 tokens
    "sampling": (0, 128 + 256, 256 + 16, 2, 1),
}
BIFURCATED = {
    # 2 samples x 4 heads = 8 rows of queries and outputs: 8 x 2 x 2 = 32 bytes each, and 8 x 4 of
    # log-sum-exp. Context K and V once: 4 tokens x 2 groups x 2 wide x 2 x 2 bytes = 64.
    # 8 rows x 4 tokens x 2 wide x 2 products x 2 FLOPs = 256
    "attention_context": (256, 32 + 64, 32 + 32, 1, 2),
    "attention_context_combine": (0, 0, 0, 0, 2),  # four tokens are not split
    # own K and V: 2 samples x 3 tokens x 16 bytes = 96; 8 x 3 x 2 x 2 x 2 = 192
    "attention_suffix": (192, 32 + 96, 32 + 32, 1, 2),
    "attention_suffix_combine": (0, 0, 0, 0, 2),
    # both partial outputs with their log-sum-exp, into one output
    "attention_merge": (0, 2 * (32 + 32), 32, 1, 2),
}
STANDARD = {
    # K and V of 2 samples x (4 + 3) tokens x 16 bytes = 224; 8 x 7 x 2 x 2 x 2 = 448 = 256 + 192
    "attention": (448, 32 + 224, 32, 1, 2),
    "attention_combine": (0, 0, 0, 0, 2),
}
# What only several query tokens need: rows by token, and a mask among them.
ONE_TOKEN = (0, 0, 0, 0, 2)
WORK = {"samples": 2, "context_tokens": 4, "decoded_tokens": 3, "kernel": "flash"}


def _counted(**work: object) -> dict[str, tuple[float, ...]]:
    return {
        name: (
            operation.flops,
            operation.bytes_read,
            operation.bytes_written,
            operation.launches,
            operation.repeat,
        )
        for name, operation in by_name(step_operations(model(), **{**WORK, **work})).items()
    }


def test_a_bifurcated_step_by_hand() -> None:
    """Every operation of the step has the FLOPs, bytes and launches worked out above."""
    assert _counted(attention="bifurcated") == {**AROUND, **BIFURCATED}


def test_a_standard_step_by_hand() -> None:
    """The same outside attention; inside, one kernel that reads the context for each sample."""
    assert _counted(attention="standard") == {**AROUND, **STANDARD}


def test_totals_by_hand() -> None:
    """Sums over both layers, the parts of weights and caches apart."""
    totals = total(step_operations(model(), attention="bifurcated", **WORK))
    # layer: 512 + 256 + 192 + 256 + 1024 + 512 = 2752; head 1024
    assert totals.flops == 2 * 2752 + 1024
    assert totals.kv_bytes_read == 2 * (64 + 96)
    # layer: 256 + 128 + 512 + 256 = 1152; head 512; two rows of the token table 32
    assert totals.weight_bytes_read == 2 * 1152 + 512 + 32
    # layer: norm, QKV, rotary, write, context, suffix, merge, output, norm, up, act, down = 12
    assert totals.launches == 2 * 12 + 1 + 1 + 1 + 2
    assert totals.link_bytes == 0


def test_the_paper_s_kernel_in_plain_pytorch_by_hand() -> None:
    """The einsum kernel run eagerly: logits cross memory eight times, the context's ten times."""
    counted = _counted_attention(attention="bifurcated", kernel="einsum", execution="eager")
    # Queries, outputs 32 bytes. Logits of 8 rows: context 8 x 4 x 2 = 64, own 8 x 3 x 2 = 48.
    # K (or V) of the context 4 x 2 x 2 x 2 = 32, of the samples' own tokens 2 x 3 x 2 x 2 x 2 = 48.
    assert counted == {
        **dict.fromkeys(("query_fold_tokens", "attention_mask", "attention_arrange"), ONE_TOKEN),
        "attention_query_scale": (0, 32, 32, 1, 2),
        # samples and the heads of a group become rows of one matrix
        "query_fold": (0, 32, 32, 1, 2),
        "attention_scores_context": (128, 32 + 32, 64, 1, 2),
        "attention_scores_suffix": (96, 32 + 48, 48, 1, 2),
        "attention_concatenate": (0, 112, 112, 1, 2),
        "attention_softmax": (0, 112, 112, 1, 2),
        # the context's slice of the weights, copied for the same reason
        "attention_weights_fold": (0, 64, 64, 1, 2),
        "attention_values_context": (128, 64 + 32, 32, 1, 2),
        "attention_values_suffix": (96, 48 + 48, 32, 1, 2),
        "attention_sum": (0, 64, 32, 1, 2),
    }


def test_pytorch_s_math_path_by_hand() -> None:
    """SDPA's math path casts to float32, repeats KV heads, and scales queries and keys."""
    counted = _counted_attention(attention="standard", kernel="sdpa_math", execution="eager")
    # Queries, outputs: 8 rows x 2 wide are 32 bytes, in float32 64. K (or V) of all: 2 samples x 7
    # tokens x 2 groups x 2 wide = 56 elements, 112 bytes, in float32 224, repeated to 4 heads 448.
    # Logits: 8 rows x 7 = 56, in float32 224.
    several = ("query_fold_tokens", "attention_mask", "attention_mask_add", "attention_arrange")
    assert counted == {
        **dict.fromkeys(several, ONE_TOKEN),
        "attention_query_cast": (0, 32, 64, 1, 2),
        "kv_cast": (0, 224, 448, 2, 2),
        "attention_query_scale": (0, 64, 64, 1, 2),
        "kv_repeat": (0, 448, 896, 2, 2),
        "attention_key_scale": (0, 448, 448, 1, 2),
        "attention_scores": (224, 64 + 448, 224, 1, 2),
        # softmax 224 -> 224; is it -inf 224 -> 56; all 56 -> 8; a zero 4; where 224 + 8 + 4 -> 224
        "attention_softmax": (0, 224 + 224 + 56 + 236, 224 + 56 + 8 + 4 + 224, 5, 2),
        "attention_weights_cast": (0, 224, 112, 1, 2),
        "attention_values": (224, 224 + 448, 64, 1, 2),
        "attention_output_cast": (0, 64, 32, 1, 2),
    }


def test_flash_in_plain_pytorch_by_hand() -> None:
    """The merge is four kernels, and flash writes a log-sum-exp whether it is wanted or not."""
    standard = _counted_attention(kv_layout="copies", kernel="flash", execution="eager")
    assert standard["attention"] == (448, 32 + 224, 32 + 32, 1, 2)
    counted = _counted_attention(attention="bifurcated", kernel="flash", execution="eager")
    assert counted["query_fold"] == (0, 32, 32, 1, 2)
    for name in ("attention_context", "attention_suffix"):
        assert counted[name] == BIFURCATED[name]
    # Both log-sum-exps (2 x 32) concatenated, their softmax, then an output (32) and its weights
    # (32) to a float32 sum (64), then sum, output and weights to the result (32).
    read, written = 64 + 64 + (32 + 32) + (64 + 32 + 32), 64 + 64 + 64 + 32
    assert counted["attention_merge"] == (0, read, written, 4, 2)


def _counted_attention(**work: object) -> dict[str, tuple[float, ...]]:
    around = ("attention_norm", "attention_residual")
    return {
        name: counted
        for name, counted in _counted(**work).items()
        if name.startswith(("attention", "kv_repeat", "kv_cast", "query_fold"))
        and name not in around
    }
