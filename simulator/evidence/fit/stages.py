"""The stages of a calibration: the constants that each kind of row determines, in order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from simulator.counts.operation import STATE_KINDS, Kind
from simulator.evidence.fit.solver import Free
from simulator.evidence.predict import paper_code
from simulator.evidence.rows.kinds import RowKind
from simulator.inputs.dtypes import Precision
from simulator.timing.constants import CONSTANTS, KEYS, SERVED, STREAMING, Key


def _keys(kind: Kind, *names: str) -> tuple[Key, ...]:
    """Return the keys of constants: a kind of operation's own, or those that kinds share."""
    return tuple(key if (key := Key(name, kind)) in KEYS else Key(name) for name in names)


# The constants in which decode attention kernels differ.
DECODE_ATTENTION = (
    Key("launch_us", "attention"),
    Key("launch_us", "combine"),
    *_keys("attention", "split_us", "sequence_us", "block_us", "block_gb_per_s"),
    *_keys("attention", "bandwidth_fraction", "l2_gb_per_s", "l2_fraction"),
    Key("launch_us", "copy"),
)
# The constants in which decode kernels of latent attention differ; launches of the combine and the
# cache write are those of ordinary attention.
_LATENT = (
    *("launch_us", "block_us", "bandwidth_fraction", "flops_fraction"),
    *("sequence_us", "block_gb_per_s", "l2_gb_per_s", "l2_fraction"),
)
_LATENT_ROWS: tuple[tuple[RowKind, Kind], ...] = (
    ("mla_decode", "latent_attention"),
    ("mla_prefill", "latent_prefill"),
)
_PRODUCTS = (
    *("launch_us", "tile_gb_per_s", "tile_start_k", "split_k_us"),
    *("bandwidth_fraction", "flops_fraction"),
)
# Those of the quantise kernel, which has no rows of its own in nvfp4.
_QUANTISED = (Key("bandwidth_fraction", "quantise"), Key("block_us", "quantise"))
_EXPERTS = (
    *("launch_us", "group_us", "visit_us", "block_us", "group_start_k"),
    *("bandwidth_fraction", "flops_fraction"),
)
_STREAMED = ("launch_us", "bandwidth_fraction")
_PREFILL = ("launch_us", "block_us", "bandwidth_fraction", "flops_fraction")
_SHARED_PREFIX = (
    *("launch_us", "sequence_us", "block_us", "block_gb_per_s", "bandwidth_fraction"),
    "keeping_up",
)
_SPARSE: dict[Kind, tuple[str, ...]] = {
    "index_scores": ("launch_us", "block_us", "flops_fraction"),
    "prefill_scores": ("launch_us", "block_us", "serial_us", "flops_fraction"),
    "index_selection": ("launch_us", "block_us", "serial_us", "bandwidth_fraction"),
    "sparse_attention": ("serial_us", "bandwidth_fraction", "flops_fraction"),
    "sparse_prefill": ("launch_us", "block_us", "serial_us", "flops_fraction"),
}
_EAGER: tuple[tuple[RowKind, tuple[str, ...]], ...] = (
    ("decode_step", ("model", "context_tokens", "samples")),
    ("shared_prefix_attention", ("prefix_len", "suffix_len", "kv_heads")),
)


# As many calls of a kernel and format take minutes to fit; of 300, seen too few shapes of experts
# and of their parts, errors on unseen shapes were a seventh larger (7.4 for 6.6 %).
MOST_CALLS = 3000
# As many of each kernel for constants of no library: a question may be of any.
ALIKE_ROWS = 300
Rows = Literal["graph", "module", "eager", "whole"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Constants that one kind of row determines.

    Attributes
    ----------
    shape
        Columns that define a row's shape: whole shapes are held out.
    instead
        Columns that do so where all rows are of one shape, the first that vary.
    own
        Whether each library and each precision gets constants of its own.
    general
        Whether there are also constants for no particular library; engines' overheads have none.
    apart
        A library whose rows have no part in these.
    least, most
        The fewest rows that can determine a constant, and the most of a kernel and format to fit, 0
        for all: whole series are left out.
    alike
        The most rows of a kernel and format that count for constants of no library where several
        have rows, so that each counts alike; 0 for all.
    noise
        The relative noise of rows that may be too few to show it: each constant must then prove
        itself on shapes left out. 0 where rows are many.
    rows
        Which rows: kernels replayed from a CUDA graph, modules of several kernels, kernels launched
        from the host one by one, or whole programs with their own timing.
    besides
        Further constants that rows in some formats determine, by format.
    """

    kind: RowKind
    free: tuple[Free, ...]
    shape: tuple[str, ...]
    instead: tuple[tuple[str, ...], ...] = ()
    own: bool = False
    general: bool = True
    apart: str = ""
    least: int = 12
    most: int = 0
    alike: int = 0
    noise: float = 0.0
    rows: Rows = "graph"
    besides: Mapping[Precision, tuple[Free, ...]] = field(default_factory=dict)


def _free(*keys: Key) -> tuple[Free, ...]:
    """Return constants to fit, each with the range that the timing model gives it."""
    return tuple(Free(key, *CONSTANTS[key.name].fit[key.kind]) for key in keys)


STAGES = (
    Stage(
        "decode_attention",
        _free(*DECODE_ATTENTION),
        ("q_heads", "kv_heads", "head_dim"),
        own=True,
        most=MOST_CALLS,
    ),
    # Before products, whose rows include a quantise kernel.
    Stage(
        "elementwise",
        _free(
            *(key for kind in STREAMING for key in _keys(kind, *_STREAMED)),
            Key("block_us", "quantise"),
        ),
        ("op", "width"),
        own=True,
    ),
    Stage(
        "gemm",
        _free(*_keys("gemm", *_PRODUCTS)),
        ("n", "k"),
        own=True,
        besides={"nvfp4": _free(*_QUANTISED)},
    ),
    # Rows with other code around one product do not tell its launch from that.
    Stage(
        "gemm",
        _free(*_keys("gemm", *_PRODUCTS[1:]), Key("module_us")),
        ("n", "k"),
        own=True,
        rows="module",
    ),
    Stage(
        "prefill_attention",
        _free(*_keys("prefill_attention", *_PREFILL), Key("exp_g_per_s")),
        ("q_heads", "kv_heads", "head_dim"),
        own=True,
        most=MOST_CALLS,
    ),
    Stage("mla_decode", _free(*_keys("latent_attention", *_LATENT)), ("heads", "batch"), own=True),
    # After the stages of its elementwise and quantise kernels.
    Stage(
        "moe",
        _free(*_keys("experts", *_EXPERTS)),
        ("hidden_size", "intermediate", "experts", "top_k"),
        own=True,
        most=MOST_CALLS,
        alike=ALIKE_ROWS,
    ),
    Stage("mla_prefill", _free(*_keys("latent_prefill", *_PREFILL)), ("heads", "batch"), own=True),
    # Long calls that the host launched one by one tell rates, not fixed times.
    *(
        Stage(
            row_kind,
            _free(*_keys(kind, "bandwidth_fraction", "flops_fraction")),
            ("heads", "batch"),
            own=True,
            general=False,
            rows="eager",
        )
        for row_kind, kind in _LATENT_ROWS
    ),
    Stage(
        "all_reduce",
        _free(
            Key("launch_us", "collective"),
            *map(Key, ("hop_us", "exchange_us", "chunk_us", "link_fraction", "switch_fraction")),
        ),
        ("num_gpus", "message_bytes"),
        own=True,
        apart="nccl",  # engines have kernels of their own, several times faster for short messages
    ),
    Stage(
        "all_reduce",
        _free(Key("host_us_per_launch")),
        ("num_gpus", "message_bytes"),
        own=True,
        general=False,  # the host of an engine's own call says little about others
        rows="eager",
    ),
    Stage(
        "linear_attention",
        _free(
            *(Key("serial_us", kind) for kind in STATE_KINDS),
            # Kernels inside chunks are as those after them: rows hardly tell them apart.
            *(
                key
                for kind in STATE_KINDS
                if kind != "chunk_solve"
                for key in _keys(kind, "launch_us", "sm_gb_per_s")
            ),
            Key("block_us", "convolution"),
            Key("bandwidth_fraction", "recurrence"),
        ),
        ("family", "num_k_heads", "num_v_heads"),
        own=True,
    ),
    Stage(
        "sparse_attention",
        _free(
            *(
                key
                for kind, names in _SPARSE.items()
                if kind != "sparse_attention"  # no rows are of this kernel alone
                for key in _keys(kind, *names)
            )
        ),
        ("kind", "heads", "batch", "q_len"),
        own=True,
    ),
    # A module's own kernels come first: products, norms, the indexer and latent attention.
    Stage(
        "mla_module",
        _free(Key("module_us")),
        ("heads", "batch"),
        own=True,
        general=False,
        rows="module",
    ),
    Stage(
        "sparse_attention",
        _free(
            *(
                key
                for kind in ("sparse_attention", "sparse_prefill")
                for key in _keys(kind, *_SPARSE[kind])
                if key.name != "launch_us"  # not to be told from what a module adds
            ),
            Key("sparse_module_us"),
        ),
        ("model", "heads", "batch"),
        own=True,
        rows="module",
    ),
    Stage(
        "shared_prefix_attention",
        _free(*_keys("attention", *_SHARED_PREFIX), Key("launch_us", "combine")),
        ("prefix_len", "suffix_len"),
    ),
    Stage(
        "decode_step",
        tuple(
            Free(Key(name), low, high, start)
            for name, (start, low, high) in paper_code.CONSTANTS.items()
        ),
        ("attention", "kernel", "kv_layout", "execution", "expand_kv", "samples"),
        rows="whole",
    ),
    *(
        Stage(kind, _free(Key("host_us_per_launch"), Key("eager_launch_us")), shape, rows="eager")
        # The whole step comes first: its host works like a user's.
        for kind, shape in _EAGER
    ),
    Stage(
        "end_to_end",
        _free(Key("step_us")),
        ("model", "batch", "input_len"),
        own=True,
        general=False,
        rows="whole",
    ),
    # Last, on top of the kernels. Users measure few runs, each a mean over many requests. Public
    # runs of one configuration and version, made again (407 of docs/serving.md), vary so much.
    Stage(
        "serving",
        _free(*map(Key, SERVED)),
        ("model", "weights_dtype", "tensor_parallel"),
        instead=(("concurrency",), ("input_len", "output_len")),
        own=True,
        general=False,
        least=3,
        noise=0.023,
    ),
)

# The rows that determine constants of the paper's own code, by the ends of their names.
_HARNESS_ROWS = {
    "cat_fraction": "whole eager steps with rebuilt caches, of few samples and of many",
    "pass_fraction": "whole steps that keep their logits in memory, of many samples",
    "kernel_us": "whole compiled steps with little to do: one sample, a short context",
    "block_gb_per_s": CONSTANTS["block_gb_per_s"].rows,
}


def wanted_rows(key: Key) -> str:
    """Return the rows to add for a constant that the given rows do not determine."""
    if key.name in CONSTANTS:
        return CONSTANTS[key.name].rows
    found = (rows for end, rows in _HARNESS_ROWS.items() if key.name.endswith(end))
    return next(found, "other shapes")
