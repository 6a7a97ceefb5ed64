"""FLOPs against PyTorch's own counter, on a decoder written out here; no memory is allocated."""

from typing import Any

import pytest
from builders import model, step_operations

from simulator.counts.operation import total
from simulator.counts.transformer import prefill_operations
from simulator.inputs.model import LatentAttention, ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

torch = pytest.importorskip("torch", reason="counts FLOPs with torch.utils.flop_counter")

B, M_C, M_D = 5, 70, 11  # samples, context, own tokens


def _meta(*sizes: int) -> Any:
    return torch.empty(*sizes, device="meta")


def _counted(run: Any) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def _linear(rows: Any, columns: int) -> Any:
    return rows @ _meta(rows.shape[-1], columns)


def _mlp(shape: ModelShape, x: Any) -> Any:
    up = _linear(x, shape.intermediate_size)
    if shape.gated_mlp:
        up = up * torch.nn.functional.silu(_linear(x, shape.intermediate_size))
    return _linear(up, shape.hidden_size)


def _attend(queries: Any, cached: int, sequences: int, width: int) -> Any:
    """Attend with queries [sequences, rows, width] of each KV head over ``cached`` keys."""
    keys = _meta(sequences, cached, width)
    return torch.bmm(torch.bmm(queries, keys.mT).softmax(-1), _meta(sequences, cached, width))


def _decoder(shape: ModelShape, *, bifurcated: bool) -> None:
    x = _meta(B, shape.hidden_size)
    h, g, k = shape.heads, shape.kv_heads, shape.head_dim
    for _ in range(shape.layers):
        _linear(x, (h + 2 * g) * k)
        if bifurcated:
            # The context once for all samples: their queries are rows of one product per KV head.
            _attend(_meta(g, B * h // g, k), M_C, g, k)
            _attend(_meta(B * g, h // g, k), M_D, B * g, k)
        else:
            _attend(_meta(B * g, h // g, k), M_C + M_D, B * g, k)
        x = _mlp(shape, _linear(_meta(B, h * k), shape.hidden_size))
    _linear(x, shape.vocab_size)


@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
@pytest.mark.parametrize("kernel", ["ideal", "flash", "einsum", "sdpa_math"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"kv_heads": 1}, {"kv_heads": 4, "gated_mlp": False}, {"layers": 3, "head_dim": 16}],
    ids=["groups", "multi-query", "multi-head", "wide"],
)
def test_a_decode_step_has_the_flops_pytorch_counts(
    attention: str, kernel: str, changes: dict[str, Any]
) -> None:
    """Projections, attention in either form, MLP and head: the same sum to the last FLOP."""
    shape = model(**changes)
    counted = _counted(lambda: _decoder(shape, bifurcated=attention == "bifurcated"))
    work = {"samples": B, "context_tokens": M_C, "decoded_tokens": M_D}
    operations = step_operations(shape, attention=attention, kernel=kernel, **work)
    assert total(operations).flops == counted


@pytest.mark.parametrize(("query_rank", "groups"), [(None, 1), (12, 1), (None, 2), (12, 4)])
def test_a_latent_step_has_the_flops_pytorch_counts(query_rank: int | None, groups: int) -> None:
    """MLA and GLA decoded in the absorbed form: heads attend over their group's vector itself."""
    latent = LatentAttention(
        kv_rank=6, rope_dim=2, nope_dim=4, value_dim=5, query_rank=query_rank, groups=groups
    )
    shape = model(latent=latent)
    h, d = shape.heads, shape.hidden_size

    def decode() -> None:
        x = _meta(B, d)
        for _ in range(shape.layers):
            compressed = _linear(x, query_rank) if query_rank else x
            _linear(compressed, h * (4 + 2))
            _linear(x, groups * 6 + 2)
            torch.bmm(_meta(h, B, 4), _meta(h, 4, 6))  # the queries into the latent space
            of_group = B * groups, h // groups
            weights = torch.bmm(_meta(*of_group, 6 + 2), _meta(B * groups, 6 + 2, M_C + M_D))
            torch.bmm(weights, _meta(B * groups, M_C + M_D, 6))
            torch.bmm(_meta(h, B, 6), _meta(h, 6, 5))  # the values out of it
            x = _mlp(shape, _linear(_meta(B, h * 5), d))
        _linear(x, shape.vocab_size)

    work = {"samples": B, "context_tokens": M_C, "decoded_tokens": M_D}
    assert total(step_operations(shape, **work)).flops == _counted(decode)


def test_a_prefill_has_the_flops_pytorch_counts_without_the_mask() -> None:
    """PyTorch counts attention of all pairs; a causal kernel skips those above the diagonal."""
    shape = model()
    h, g, k = shape.heads, shape.kv_heads, shape.head_dim

    def prefill() -> None:
        x = _meta(M_C, shape.hidden_size)
        for _ in range(shape.layers):
            _linear(x, (h + 2 * g) * k)
            _attend(_meta(h, M_C, k), M_C, h, k)
            x = _mlp(shape, _linear(_meta(M_C, h * k), shape.hidden_size))
        _linear(x[-1:], shape.vocab_size)

    operations = prefill_operations(shape, Setup(), Workload(context_tokens=M_C, samples=B))
    skipped = shape.layers * 4 * h * k * (M_C * (M_C - 1) // 2)
    assert total(operations).flops == _counted(prefill) - skipped
