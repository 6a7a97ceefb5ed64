"""FlashInfer's own wrapper, where it is installed, with plain products in place of its kernels.

Its Python code needs no GPU: how it hands a plan and the caches to each level, and which states it
merges, is seen on any machine (FlashInfer 0.6.18 alone asks for a card when it is imported).
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from library_stand_ins import Cascade  # noqa: E402
from torch import Tensor  # noqa: E402

from simulator.errors import KernelError  # noqa: E402
from simulator.evidence.kernels.external import check_flashinfer_cascade as check  # noqa: E402
from simulator.evidence.kernels.external import plan_flashinfer_cascade as plan_flashinfer  # noqa: E402
from simulator.evidence.kernels.inputs import Inputs  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")
# What one level is given, as its wrapper's buffers and its plan call it.
NAMES = ("qo_indptr", "paged_kv_indptr", "paged_kv_indices", "paged_kv_last_page_len")


class Level:
    """One level's paged prefill: the library's signature, our products, log-sum-exp base 2."""

    def __init__(self, library: type, *given: Any, **named: Any) -> None:
        self.signatures = {
            name: inspect.signature(getattr(library, name)) for name in ("plan", "run")
        }
        made = inspect.signature(library.__init__).bind(self, *given, **named).arguments
        self.buffers = [made.get(f"{name}_buf") for name in NAMES]
        self.graph = made.get("use_cuda_graph", False)

    def plan(self, *given: Any, **named: Any) -> None:
        """Keep the plan, of a graph in its buffers."""
        bound = self.signatures["plan"].bind(self, *given, **named)
        bound.apply_defaults()
        asked = bound.arguments
        self.level = tuple(asked[name] for name in NAMES)
        if self.graph:
            for buffer, part in zip(self.buffers, self.level, strict=True):
                assert buffer is not None
                buffer.copy_(part)
            self.level = tuple(self.buffers)
        self.page_tokens, self.scale = asked["page_size"], asked["sm_scale"]
        assert not asked["causal"]

    def run(self, *given: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """Attend to this level."""
        asked = self.signatures["run"].bind(self, *given, **named).arguments
        assert asked["return_lse"]
        return Cascade.of_level(
            self.level, asked["q"], asked["paged_kv_cache"], self.page_tokens, self.scale
        )


def merge_in_place(v: Tensor, s: Tensor, v_other: Tensor, s_other: Tensor) -> None:
    """Merge two states by powers of two, into the first."""
    total = torch.logaddexp2(s, s_other)
    weight = torch.exp2(s - total).unsqueeze(-1)
    v.mul_(weight).add_(v_other * (1 - weight))
    s.copy_(total)


@pytest.mark.parametrize("graph", [False, True])
def test_flashinfers_own_wrapper_gives_the_attention(
    graph: bool,
    random_inputs: Callable[..., Inputs],
    reference: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Our plan through the library's own code: both levels, each once, make up the attention."""
    try:
        cascade = inspect.getmodule(inspect.unwrap(check().plan))
    except KernelError as problem:
        pytest.skip(str(problem))
    assert cascade is not None
    library = vars(cascade)["BatchPrefillWithPagedKVCacheWrapper"]

    def level(*given: Any, **named: Any) -> Level:
        return Level(library, *given, **named)

    monkeypatch.setattr(cascade, "BatchPrefillWithPagedKVCacheWrapper", level)
    monkeypatch.setattr(cascade, "merge_state_in_place", merge_in_place)
    for shape in [(2, 3, 2, 3, 64, 40, 5), (1, 4, 1, 1, 64, 16, 16), (3, 1, 2, 7, 64, 1, 33)]:
        inputs = random_inputs(shape)
        output = plan_flashinfer(inputs, scale=0.4, graph=graph).attend(*inputs)
        truth = reference(*inputs, scale=0.4)
        torch.testing.assert_close(output, truth, rtol=0, atol=1e-12)
