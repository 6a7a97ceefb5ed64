"""The stages of a calibration: the constants that each kind of row determines, in order."""

from dataclasses import dataclass
from typing import Literal

from simulator.evidence.fit.solver import Free
from simulator.evidence.predict.paper_code import CONSTANTS
from simulator.evidence.rows.kinds import RowKind

_ATTENTION = (
    Free("attention_launch_us", 0.5, 40),
    Free("combine_launch_us", 0.02, 20),
    Free("split_us", 1e-4, 1),
    Free("sequence_us", 1e-5, 0.1),
    Free("attention_block_us", 0.01, 30),
    Free("block_gb_per_s", 3, 400),
    Free("attention_bandwidth_fraction", 0.3, 1),
    Free("l2_gb_per_s", 4, 200),
    Free("l2_fraction", 0.3, 1),
)

_EAGER: tuple[tuple[RowKind, tuple[str, ...]], ...] = (
    ("decode_step", ("model", "context_tokens", "samples")),
    ("shared_prefix_attention", ("prefix_len", "suffix_len", "kv_heads")),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Constants that one kind of row determines.

    Attributes
    ----------
    shape
        Columns that make up a row's shape: whole shapes are held out.
    own
        Whether each library, and 8-bit formats, get constants of their own.
    general
        Whether there are constants for no library in particular: each engine's overhead is its own.
    rows
        Which rows: replayed from a CUDA graph, launched from the host one by one, or whole programs
        with a timing of their own.
    """

    kind: RowKind
    free: tuple[Free, ...]
    shape: tuple[str, ...]
    own: bool = False
    general: bool = True
    rows: Literal["graph", "eager", "whole"] = "graph"


STAGES = (
    Stage(
        "decode_attention",
        (*_ATTENTION, Free("copy_launch_us", 0.3, 12)),
        ("q_heads", "kv_heads", "head_dim"),
        own=True,
    ),
    Stage(
        "gemm",
        (
            Free("gemm_launch_us", 0.3, 15),
            Free("tile_gb_per_s", 5, 1000),
            Free("split_k_us", 0.05, 20),
            Free("gemm_bandwidth_fraction", 0.3, 1),
            Free("gemm_flops_fraction", 0.1, 1),
        ),
        ("n", "k"),
        own=True,
    ),
    Stage(
        "prefill_attention",
        (
            Free("prefill_attention_launch_us", 0.5, 60),
            Free("prefill_attention_block_us", 0.01, 30),
            Free("prefill_attention_bandwidth_fraction", 0.1, 1),
            Free("prefill_attention_flops_fraction", 0.05, 1),
        ),
        ("q_heads", "kv_heads", "head_dim"),
        own=True,
    ),
    Stage(
        "elementwise",
        (
            Free("elementwise_launch_us", 0.3, 20),
            Free("elementwise_bandwidth_fraction", 0.1, 1),
        ),
        ("op", "width"),
        own=True,
    ),
    Stage(
        "all_reduce",
        (Free("collective_launch_us", 0.5, 60), Free("link_fraction", 0.02, 1)),
        ("num_gpus", "message_bytes"),
        own=True,
    ),
    Stage(
        "shared_prefix_attention",
        (
            Free("attention_launch_us", 0.5, 40),
            Free("sequence_us", 1e-5, 0.1),
            Free("attention_block_us", 0.01, 30),
            Free("block_gb_per_s", 3, 400),
            Free("attention_bandwidth_fraction", 0.3, 1),
            Free("combine_launch_us", 0.02, 20),
        ),
        ("prefix_len", "suffix_len"),
    ),
    Stage(
        "decode_step",
        tuple(Free(name, low, high, start) for name, (start, low, high) in CONSTANTS.items()),
        ("attention", "kernel", "kv_layout", "execution", "expand_kv", "samples"),
        rows="whole",
    ),
    *(
        Stage(
            kind,
            (Free("host_us_per_launch", 0.5, 60), Free("eager_launch_us", 0.02, 20)),
            shape,
            rows="eager",
        )
        # The whole step comes first: its host does what a user's does.
        for kind, shape in _EAGER
    ),
    Stage(
        "end_to_end",
        (Free("step_us", 1, 50_000, 1000),),
        ("model", "batch", "input_len"),
        own=True,
        general=False,
        rows="whole",
    ),
)

# The rows to add for a constant that the present rows do not determine.
WANTED = {
    "launch_us": "rows with little to do: batch 1, few tokens, or m = 1 with small n and k",
    "split_us": "decode attention of one long sequence with few KV heads",
    "sequence_us": "decode attention with a batch of 512 and more",
    "block_us": "calls with many more thread blocks than SMs: a large batch of short sequences",
    "block_gb_per_s": "decode attention with fewer sequences x KV heads than SMs, and long ones",
    "bandwidth_fraction": "rows whose bytes are several times the L2 cache",
    "l2_gb_per_s": "replayed calls whose bytes fit L2",
    "l2_fraction": "replayed calls whose bytes are about the size of L2",
    "flops_fraction": "rows with many FLOPs per byte: m of 1024 and more, or long prefill",
    "tile_gb_per_s": "products of 64 to 256 rows and many columns",
    "split_k_us": "products with a long inner dimension and few columns",
    "link_fraction": "collectives of 16 MB and more",
    "cat_fraction": "whole eager steps with rebuilt caches, of few samples and of many",
    "pass_fraction": "whole steps that keep their logits in memory, of many samples",
    "kernel_us": "whole compiled steps with little to do: one sample, a short context",
    "host_us_per_launch": "rows launched from the host, with little for the GPU to do",
    "step_us": "end-to-end batches of one sequence",
}


def wanted_rows(name: str) -> str:
    """Return the rows that would determine a constant."""
    return next((text for suffix, text in WANTED.items() if name.endswith(suffix)), "other shapes")
