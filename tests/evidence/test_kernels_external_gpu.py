"""FlashInfer's and vLLM's cascade on a CUDA card that has them: against float64, and in a graph."""

import pytest

torch = pytest.importorskip("torch")

from simulator.evidence.kernels import EXTERNAL_KERNELS, find_kernel  # noqa: E402
from simulator.evidence.kernels.inputs import Inputs  # noqa: E402
from simulator.evidence.kernels.layout import attention_inputs, page_pool  # noqa: E402
from simulator.evidence.measure.cells import AttentionCell  # noqa: E402
from simulator.evidence.measure.correctness import TOLERANCES, reference_attention, relative_error  # noqa: E402
from simulator.evidence.measure.device import CudaDevice  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    # What the libraries warn about is not what is tested here.
    pytest.mark.filterwarnings("default"),
]
TOKENS = ("context_tokens", "decoded_tokens")
# prompts, samples, heads, kv_heads, head_dim, context and own tokens
SHAPES = {
    "grouped": (1, 16, 32, 8, 128, 8192, 64),
    "one sample, pages half full": (1, 1, 8, 8, 128, 1000, 7),
    "multi-query, many samples": (1, 256, 32, 1, 128, 1024, 33),
    "several prompts": (3, 5, 12, 4, 64, 130, 17),
}


@pytest.fixture(scope="module", params=sorted(EXTERNAL_KERNELS))
def name(request: pytest.FixtureRequest) -> str:
    """A kernel of a library that is installed."""
    chosen: str = request.param
    library = EXTERNAL_KERNELS[chosen].library
    assert library is not None
    if not library.installed:
        pytest.skip(f"{library.distribution} is not installed")
    return chosen


def paged(shape: str, dtype: torch.dtype) -> Inputs:
    """Random inputs on pages."""
    names = ("prompts", "samples", "heads", "kv_heads", "head_dim", *TOKENS)
    sizes = dict(zip(names, SHAPES[shape], strict=True))
    return attention_inputs(
        AttentionCell(kernel="flashinfer_cascade", **sizes), "paged", dtype, CudaDevice().normal
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_librarys_cascade_is_right(name: str, shape: str, dtype: torch.dtype) -> None:
    """Launched one by one and from a graph that is replayed over new numbers, as exact as ours."""
    kernel, inputs = find_kernel(name), paged(shape, dtype)
    with torch.no_grad():
        found = kernel.ready(inputs).attend(*inputs)
        assert relative_error(found, reference_attention(*inputs)) <= TOLERANCES[dtype]
        ready = kernel.ready(inputs, graph=True)
        arguments = ready.arrange(inputs)
        ready.run(*arguments)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            replayed = ready.run(*arguments)
        for part in (inputs[0], page_pool(inputs[1], inputs[3]), page_pool(inputs[2], inputs[4])):
            part.normal_()
        graph.replay()
        torch.cuda.synchronize()
        wanted = reference_attention(*inputs)
        assert relative_error(replayed.view(wanted.shape), wanted) <= TOLERANCES[dtype]
