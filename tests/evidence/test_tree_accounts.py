"""The account of attention over a prefix tree equals a trace of the PyTorch kernel."""

import pytest

torch = pytest.importorskip("torch")

import itertools  # noqa: E402
import math  # noqa: E402
from dataclasses import dataclass  # noqa: E402

from builders import as_traced  # noqa: E402
from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import Tensor  # noqa: E402

from simulator.counts.attention.registry import PLAIN_KERNELS  # noqa: E402
from simulator.counts.attention.shape import AttentionShape  # noqa: E402
from simulator.counts.operation import Operation  # noqa: E402
from simulator.counts.transformer import attention, attention_shape  # noqa: E402
from simulator.evidence.kernels import KERNELS  # noqa: E402
from simulator.evidence.tracing import TracedOperation, trace  # noqa: E402
from simulator.inputs.model import ModelShape  # noqa: E402
from simulator.inputs.setup import Setup  # noqa: E402
from simulator.inputs.tree import Level  # noqa: E402
from simulator.inputs.workload import Workload  # noqa: E402

Figures = tuple[float, float, float, float]  # FLOPs, bytes read, bytes written, launches
TREE_SETUP = Setup(attention="bifurcated", kernel="flash", kv_layout="shared", execution="eager")


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree with the attention that reads it: levels are (tokens, branches, split)."""

    levels: tuple[tuple[int, int, bool], ...]
    samples: int
    decoded: int
    kv_heads: int
    group: int
    width: int
    query_tokens: int = 1

    @property
    def prompts(self) -> int:
        """Nodes of the last level."""
        return math.prod(branches for _, branches, _ in self.levels)

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.kv_heads * self.group

    def workload(self) -> Workload:
        """The sizes of a step over the tree."""
        levels = [
            Level(name=f"l{index}", tokens=tokens, branches=branches, split=split)
            for index, (tokens, branches, split) in enumerate(self.levels)
        ]
        return Workload(
            tree=levels,
            samples=self.samples,
            query_tokens=self.query_tokens,
            decoded_tokens=self.decoded,
        )

    def shape(self, *, resident: int) -> AttentionShape:
        """The sizes as a step counts them."""
        model = ModelShape(
            name="drawn",
            layers=1,
            hidden_size=8,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.width,
            intermediate_size=8,
            vocab_size=8,
        )
        return attention_shape(model, TREE_SETUP, self.workload(), resident_blocks=resident)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Draw a tree of one to four levels, any of them split from what is below."""
    levels = draw(
        st.lists(
            st.tuples(
                st.one_of(st.sampled_from([1, 2, 128, 2048]), st.integers(1, 900)),
                st.sampled_from([1, 1, 2, 3]),
                st.sampled_from([True, True, False]),
            ),
            min_size=1,
            max_size=4,
        )
    )
    decoded = draw(st.sampled_from([0, 1, 7, 300]))
    return Tree(
        levels=tuple(levels),
        samples=draw(st.sampled_from([1, 2, 3, 16, 40])),
        # Several tokens are a sample's last own ones.
        query_tokens=draw(st.sampled_from([1, 1, 2, 5] if decoded >= 5 else [1])),
        decoded=decoded,
        kv_heads=draw(st.sampled_from([1, 2, 8])),
        group=draw(st.sampled_from([1, 2, 5])),
        width=draw(st.sampled_from([64, 128])),
    )


def traced(tree: Tree) -> list[TracedOperation]:
    """Trace the kernel on caches in which levels that are not split lie with what is below."""

    def empty(*sizes: int) -> Tensor:
        return torch.empty(*sizes, dtype=torch.bfloat16, device="meta")

    keys, waiting, nodes = [], 0, 1
    for tokens, branches, split in tree.levels:
        nodes, waiting = nodes * branches, waiting + tokens
        if split:
            keys.append(empty(nodes, tree.kv_heads, waiting, tree.width))
            waiting = 0
    keys = keys or [empty(1, tree.kv_heads, 0, tree.width)]
    own = empty(tree.prompts, tree.samples, tree.kv_heads, waiting + tree.decoded, tree.width)
    query = empty(tree.prompts, tree.samples, tree.query_tokens, tree.heads, tree.width)
    if tree.query_tokens == 1:
        query = query[:, :, 0]
    values = [torch.empty_like(each) for each in keys]
    inputs = (query, keys, values, own, torch.empty_like(own))
    return list(trace(KERNELS["prefix_tree"].function, *inputs).operations)


def summed(operations: list[TracedOperation]) -> Figures:
    """Add up kernels in a row."""
    fields = ("flops", "bytes_read", "bytes_written", "launches")
    flops, read, written, launches = (
        sum(getattr(each, field) for each in operations) for field in fields
    )
    return flops, read, written, launches


def without_reuse(operations: list[Operation]) -> dict[str, Figures]:
    """Return an account as a trace sees it when joined levels are copied to where they are read.

    Stored once, they are read as often; a trace of copies counts every reading.
    """
    again = {each.name: each.reused_bytes for each in operations}
    return {
        each.name: (
            each.flops,
            each.bytes_read + again[each.name],
            each.bytes_written,
            each.launches,
        )
        for each in as_traced(operations)
    }


@given(tree=trees(), resident=st.sampled_from([1, 264]))
@example(
    tree=Tree(
        levels=((100, 1, True), (50, 2, True), (30, 2, True)),
        samples=3,
        decoded=7,
        kv_heads=2,
        group=4,
        width=64,
    ),
    resident=264,
)
@settings(deadline=None, max_examples=80)
def test_the_account_of_a_tree_is_the_trace(tree: Tree, resident: int) -> None:
    """FLOPs, bytes and launches, kernel by kernel, for any tree and any choice of levels."""
    account = PLAIN_KERNELS["prefix_tree"].operations(tree.shape(resident=resident))
    rest = traced(tree)
    for name, figures in without_reuse(account).items():
        count = int(figures[-1])
        assert figures == summed(rest[:count]), name
        del rest[:count]
    assert rest == [], "the trace goes on where the account has ended"


@given(tree=trees())
@settings(deadline=None)
def test_what_is_read_again_is_what_is_joined(tree: Tree) -> None:
    """The re-reads of an account: every reading of a node beyond its first, levels joined only."""
    shape = tree.shape(resident=1)
    again, nodes = 0, 1
    below = [*itertools.accumulate((branches for _, branches, _ in tree.levels), int.__mul__)]
    splits = [split for *_, split in tree.levels]
    for index, (tokens, branches, _) in enumerate(tree.levels):
        nodes *= branches
        readers = next(
            (count for count, split in zip(below[index:], splits[index:], strict=True) if split),
            tree.prompts * tree.samples,
        )
        again += (readers - nodes) * tokens
    account = PLAIN_KERNELS["prefix_tree"].operations(shape)
    token_bytes = 2 * tree.kv_heads * tree.width * 2
    assert sum(each.reused_bytes for each in account) == again * token_bytes


@given(tree=trees())
@settings(deadline=None)
def test_a_tree_s_words_lead_to_its_kernel(tree: Tree) -> None:
    """Bifurcated flash attention in plain PyTorch over levels is the kernel ``prefix_tree``."""
    shape = tree.shape(resident=264)
    assert attention(shape, TREE_SETUP) == PLAIN_KERNELS["prefix_tree"].operations(shape)
