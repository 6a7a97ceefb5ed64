"""What a plain PyTorch layer holds while it prefills is what the memory of a request counts."""

import pytest

torch = pytest.importorskip("torch")

from typing import Any  # noqa: E402

from builders import llama_2_7b, mistral_7b, model  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.multiprocessing.reductions import StorageWeakRef  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from simulator.counts.memory import prefill_workspace_bytes  # noqa: E402
from simulator.inputs.model import ModelShape  # noqa: E402
from simulator.inputs.setup import Setup  # noqa: E402
from simulator.inputs.workload import Workload  # noqa: E402

TOKENS = 1000


class Peak(TorchDispatchMode):
    """The most bytes that live at one time in what operators made."""

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self._given = {tensor.untyped_storage()._cdata for tensor in given}
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and take stock."""
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._given:
                    self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: item for key, item in self._live.items() if not item[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self._live.values()))
        return out


def _matrix(*sizes: int) -> Tensor:
    return torch.empty(*sizes, dtype=torch.bfloat16, device="meta")


def _layer_peak_bytes(shape: ModelShape) -> int:
    """Prefill one layer as everybody writes it first, and return its peak."""
    d, i, k = shape.hidden_size, shape.intermediate_size, shape.head_dim
    h, g = shape.heads, shape.kv_heads
    queries, keys, values = _matrix(h * k, d), _matrix(g * k, d), _matrix(g * k, d)
    output, down = _matrix(d, h * k), _matrix(d, i)
    ups = [_matrix(i, d) for _ in range(2 if shape.gated_mlp else 1)]
    weight, cache = _matrix(d), _matrix(2, TOKENS, g * k)

    def attention(x: Tensor) -> Tensor:
        rows = [functional.linear(x, matrix) for matrix in (queries, keys, values)]
        cache[0].copy_(rows[1])
        cache[1].copy_(rows[2])
        q, key, value = (row.view(1, TOKENS, -1, k).transpose(1, 2) for row in rows)
        # The operator that PyTorch takes on a GPU: it makes no logits.
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        mixed = flash(q, key, value, 0.0, is_causal=True)[0]
        return functional.linear(mixed.transpose(1, 2).reshape(TOKENS, h * k), output)

    def mlp(x: Tensor) -> Tensor:
        inner = functional.silu(functional.linear(x, ups[0]))
        if shape.gated_mlp:
            inner = inner * functional.linear(x, ups[1])
        return functional.linear(inner, down)

    def layer(x: Tensor) -> Tensor:
        x = x + attention(functional.layer_norm(x, (d,), weight))
        return x + mlp(functional.layer_norm(x, (d,), weight))

    given = [queries, keys, values, output, down, *ups, weight, cache]
    with torch.no_grad(), Peak(given) as peak:
        x = torch.zeros_like(weight).expand(TOKENS, d).clone()
        layer(x)
    return peak.bytes


WIDE_HEADS = model(
    hidden_size=64, heads=16, kv_heads=16, head_dim=32, intermediate_size=128, vocab_size=10
)


@pytest.mark.parametrize(
    "shape",
    [
        llama_2_7b(),
        mistral_7b(),
        mistral_7b(name="plain MLP", gated_mlp=False),
        llama_2_7b(name="narrow MLP", intermediate_size=4096),
        WIDE_HEADS,
    ],
    ids=lambda shape: shape.name,
)
def test_an_eager_prefill_holds_what_a_layer_makes(shape: ModelShape) -> None:
    """What lives in the layer at its peak, but for a number or two of each row."""
    setup = Setup(execution="eager", kernel="einsum")
    counted = prefill_workspace_bytes(shape, setup, Workload(), tokens=TOKENS)
    assert counted <= _layer_peak_bytes(shape) <= counted + 8 * TOKENS
