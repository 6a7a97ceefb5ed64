"""What an engine keeps of a card's memory, and what its share of that memory means."""

from typing import NamedTuple

from simulator.inputs.setup import Setup
from simulator.numeric import Numeric, minimum, where
from simulator.units import GIB


class Kept(NamedTuple):
    """Memory that an engine keeps on each GPU beside weights, activations and caches.

    Attributes
    ----------
    value_bytes, low_bytes, high_bytes
        The constant, and the ends of its interval. [bytes]
    source
        Where it comes from: rows and error of a fit, or what it is carried from.
    """

    value_bytes: int
    low_bytes: int
    high_bytes: int
    source: str


# What the driver, the CUDA context, libraries, CUDA graphs and the sampler take.
# tests/golden/test_engine_memory.py has the logs and repeats the fit.
PROCESS = Kept(
    value_bytes=int(1.6 * GIB),
    low_bytes=int(0.4 * GIB),
    high_bytes=int(2.7 * GIB),
    source="vLLM, 15 start-up logs (2024 to 2026): median, least and most of card x share less "
    "weights, caches and activations; with each log left out of the fit in turn, its KV tokens are "
    "off by 2.1 % (median), at most by 22 % or 3 % of the card",
)
# Buffers of NCCL and of the all-reduce kernels of a tensor-parallel group.
COLLECTIVES = Kept(
    value_bytes=int(1.1 * GIB),
    low_bytes=int(0.4 * GIB),
    high_bytes=int(2.0 * GIB),
    source="carried: one SGLang log (four H100, vllm issue 21348) less what one process keeps; "
    "ends recalled",
)

# Tokens of the largest prefill batch if none are given. vLLM's server takes the larger number on
# cards from this memory on, as do SGLang (chunked_prefill_size) on these and TensorRT-LLM
# (max_num_tokens) on all; vLLM's other defaults lie between the ends. All recalled.
LARGE_CARD_BYTES = 70 * GIB
SMALL_BATCH_TOKENS, LARGE_BATCH_TOKENS, LARGEST_BATCH_TOKENS = 2048, 8192, 16384


def batched_tokens(setup: Setup, card_bytes: Numeric) -> tuple[Numeric, int, int]:
    """Return the tokens of the largest prefill batch an engine allows, and the ends it may have.

    Parameters
    ----------
    setup
        How the step runs; a given ``max_batched_tokens`` leaves no doubt.
    card_bytes
        Memory of the card. [bytes]

    Examples
    --------
    >>> batched_tokens(Setup(), 24 * GIB), batched_tokens(Setup(max_batched_tokens=4096), 24 * GIB)
    ((2048, 2048, 16384), (4096, 4096, 4096))
    """
    given = setup.max_batched_tokens
    if given is not None:
        return given, given, given
    usual = where(card_bytes >= LARGE_CARD_BYTES, LARGE_BATCH_TOKENS, SMALL_BATCH_TOKENS)
    if setup.engine == "trtllm":
        usual = LARGE_BATCH_TOKENS
    return usual, SMALL_BATCH_TOKENS, LARGEST_BATCH_TOKENS


def kept_bytes(setup: Setup) -> tuple[int, int, int]:
    """Return what a process keeps on one GPU, and the ends of its interval. [bytes].

    >>> [round(kept / GIB, 1) for kept in kept_bytes(Setup())]
    [1.6, 0.4, 2.7]
    """
    grouped = setup.gpus > 1
    return (
        PROCESS.value_bytes + where(grouped, COLLECTIVES.value_bytes, 0),
        PROCESS.low_bytes + where(grouped, COLLECTIVES.low_bytes, 0),
        PROCESS.high_bytes + where(grouped, COLLECTIVES.high_bytes, 0),
    )


def usable_bytes(
    setup: Setup,
    card_bytes: Numeric,
    *,
    weights_bytes: float,
    workspace_bytes: Numeric,
    kept: float,
) -> Numeric:
    """Return what weights, caches, activations and all that is kept may take together. [bytes].

    Parameters
    ----------
    setup
        Its ``gpu_memory_utilization`` means what its ``engine`` makes of it: a share of the whole
        card (vLLM, ``--gpu-memory-utilization``); a share of what the card has before the weights
        are loaded, for weights and caches alone (SGLang, ``--mem-fraction-static``); or a share of
        what is free once all else is loaded, for the caches (TensorRT-LLM,
        ``free_gpu_memory_fraction``).
    card_bytes
        Memory of the card. [bytes]
    weights_bytes, workspace_bytes, kept
        What the weights, the activations and all that is kept take. [bytes]

    Examples
    --------
    >>> asked = {"weights_bytes": 20, "workspace_bytes": 5, "kept": 5}
    >>> for engine in ("vllm", "sglang", "trtllm"):
    ...     usable_bytes(Setup(engine=engine), 100, **asked)
    90.0
    95.5
    93.0
    """
    share, others = setup.gpu_memory_utilization, 0.0
    if setup.engine == "sglang":
        static = share * (card_bytes - kept)
        return minimum(card_bytes, static + workspace_bytes + kept)
    if setup.engine == "trtllm":
        others = weights_bytes + workspace_bytes + kept
    return share * card_bytes + (1 - share) * others
