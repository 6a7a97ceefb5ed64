"""What a trace of each kernel says, against the operations written out as formulas.

b sequences (prompts x samples), h query heads, g KV heads, p = h/g, k head width, m_c context and
m_d own tokens, m = m_c + m_d; s bytes per element. These are the numbers that the accounts in
simulator/counts must equal.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import lay_out
from torch import Tensor

from simulator.evidence.kernels import KERNELS
from simulator.evidence.kernels.bifurcated import CHUNKS
from simulator.evidence.tracing import trace

Draw = Callable[..., tuple[Tensor, ...]]
Row = tuple[str, int, int, int]  # name, FLOPs, bytes read, bytes written
FLASH = "_scaled_dot_product_flash_attention"
F32 = 4  # bytes of a float32


@dataclass(frozen=True)
class Sizes:
    """Sizes in the paper's letters."""

    prompts: int
    samples: int
    g: int
    p: int
    k: int
    m_c: int
    m_d: int
    s: int = 2

    @property
    def b(self) -> int:
        """Sequences."""
        return self.prompts * self.samples

    @property
    def h(self) -> int:
        """Query heads."""
        return self.g * self.p

    @property
    def m(self) -> int:
        """Tokens a sequence sees."""
        return self.m_c + self.m_d

    @property
    def q(self) -> int:
        """Elements of the queries, b h k; the output has as many."""
        return self.b * self.h * self.k

    @property
    def lse(self) -> int:
        """Bytes of a log-sum-exp, b h in float32."""
        return self.b * self.h * F32

    @property
    def context(self) -> int:
        """Elements of the context's keys, g m_c k for each prompt."""
        return self.prompts * self.g * self.m_c * self.k

    @property
    def own(self) -> int:
        """Elements of the samples' own keys, b g m_d k."""
        return self.b * self.g * self.m_d * self.k

    @property
    def cache(self) -> int:
        """Elements of the keys of one copy per sample, b g m k."""
        return self.b * self.g * self.m * self.k

    def product(self, tokens: int) -> int:
        """FLOPs of the queries against some tokens, 2 b h k tokens."""
        return 2 * self.q * tokens

    @property
    def folds_by_copy(self) -> bool:
        """Whether folding samples and groups into rows must copy."""
        return self.samples > 1 and self.g > 1 and self.p > 1

    @property
    def merges_by_copy(self) -> bool:
        """Whether merging prompts with KV heads, and samples with groups, must copy."""
        return self.samples > 1 and self.g > 1 and (self.p > 1 or self.prompts > 1)


def flash(z: Sizes, tokens: int, keys: int) -> Row:
    """One flash call of all queries on some tokens."""
    read, written = z.s * (z.q + 2 * keys), z.s * z.q + z.lse
    return (FLASH, 2 * z.product(tokens), read, written)


def merge(z: Sizes, states: int) -> list[Row]:
    """The merge of some states in float32."""
    softened = states * z.lse
    first = ("mul", 0, z.s * z.q + z.lse, F32 * z.q)
    accumulated = (F32 + z.s) * z.q + z.lse
    middle = [("addcmul_", 0, accumulated, F32 * z.q)] * (states - 2)
    last = ("addcmul", 0, accumulated, z.s * z.q)
    return [
        ("cat", 0, softened, softened),
        ("_softmax", 0, softened, softened),
        first,
        *middle,
        last,
    ]


def copy(elements: int, s: int, *, needed: bool = True) -> list[Row]:
    """A copy, where one is needed."""
    return [("clone", 0, s * elements, s * elements)] if needed else []


def standard_einsum(z: Sizes) -> list[Row]:
    """Scale, q K, softmax, w V."""
    logits = z.b * z.h * z.m
    return [
        ("mul", 0, z.s * z.q, z.s * z.q),
        ("bmm", z.product(z.m), z.s * (z.q + z.cache), z.s * logits),
        ("_softmax", 0, z.s * logits, z.s * logits),
        ("bmm", z.product(z.m), z.s * (logits + z.cache), z.s * z.q),
    ]


def standard_math(z: Sizes) -> list[Row]:
    """Everything to float32, KV heads repeated, softmax guarded against rows without keys."""
    logits, repeated = z.b * z.h * z.m, z.p * z.cache
    rows = z.b * z.h
    return [
        ("_to_copy", 0, z.s * z.q, F32 * z.q),
        *[("_to_copy", 0, z.s * z.cache, F32 * z.cache)] * 2,
        ("mul", 0, F32 * z.q, F32 * z.q),
        *([("clone", 0, F32 * z.cache, F32 * repeated)] * 2 if z.p > 1 else []),
        ("mul", 0, F32 * repeated, F32 * repeated),
        ("bmm", z.product(z.m), F32 * (z.q + repeated), F32 * logits),
        ("_softmax", 0, F32 * logits, F32 * logits),
        ("isneginf", 0, F32 * logits, logits),
        ("all", 0, logits, rows),
        ("fill_", 0, 0, F32),
        ("where", 0, F32 * logits + rows + F32, F32 * logits),
        ("_to_copy", 0, F32 * logits, z.s * logits),
        ("bmm", z.product(z.m), F32 * (logits + repeated), F32 * z.q),
        ("_to_copy", 0, F32 * z.q, z.s * z.q),
    ]


def standard_flash(z: Sizes) -> list[Row]:
    """One call."""
    return [flash(z, z.m, z.cache)]


def standard_flash_expanded(z: Sizes) -> list[Row]:
    """Own tokens, then the context, whose storage is one copy; merge."""
    return [
        flash(z, z.m_d, z.own),
        *copy(z.q, z.s, needed=z.prompts > 1 and z.samples > 1 and z.g > 1),
        flash(z, z.m_c, z.context),
        *merge(z, 2),
    ]


def standard_rebuilt(z: Sizes) -> list[Row]:
    """Keys and values concatenated, then one call."""
    rebuilt = ("cat", 0, z.s * (z.context + z.own), z.s * z.cache)
    return [rebuilt, rebuilt, flash(z, z.m, z.cache)]


def standard_repeat_kv(z: Sizes) -> list[Row]:
    """Keys and values repeated p times, p = 1 included, then one call."""
    repeated = ("clone", 0, z.s * z.cache, z.s * z.p * z.cache)
    return [repeated, repeated, flash(z, z.m, z.p * z.cache)]


def bifurcated_einsum(z: Sizes) -> list[Row]:
    """Two q K, their concatenation, one softmax, two w V, their sum."""
    context_logits, own_logits = z.b * z.h * z.m_c, z.b * z.h * z.m_d
    logits = context_logits + own_logits
    by_copy = z.merges_by_copy
    # One token leaves no sum, so einsum multiplies: the same traffic, no matrix product.
    own = ("bmm", z.product(z.m_d)) if z.m_d > 1 else ("mul", 0)
    return [
        ("mul", 0, z.s * z.q, z.s * z.q),
        *copy(z.q, z.s, needed=by_copy),
        ("bmm", z.product(z.m_c), z.s * (z.q + z.context), z.s * context_logits),
        ("bmm", z.product(z.m_d), z.s * (z.q + z.own), z.s * own_logits),
        ("cat", 0, z.s * logits, z.s * logits),
        ("_softmax", 0, z.s * logits, z.s * logits),
        *copy(context_logits, z.s, needed=by_copy),
        ("bmm", z.product(z.m_c), z.s * (context_logits + z.context), z.s * z.q),
        (*own, z.s * (own_logits + z.own), z.s * z.q),
        ("add", 0, 2 * z.s * z.q, z.s * z.q),
    ]


def bifurcated_flash(z: Sizes) -> list[Row]:
    """Own tokens, folding, the context, merge."""
    return [
        flash(z, z.m_d, z.own),
        *copy(z.q, z.s, needed=z.folds_by_copy),
        flash(z, z.m_c, z.context),
        *merge(z, 2),
    ]


def bifurcated_flash_chunked(z: Sizes) -> list[Row]:
    """Own tokens, folding, the chunks in one call, the remainder, merge."""
    chunks = min(CHUNKS, z.m_c)
    rest = z.m_c - chunks * (z.m_c // chunks)
    whole = z.prompts * z.g * (z.m_c - rest) * z.k
    partials = chunks * (z.s * z.q + z.lse)
    rows: list[Row] = [
        flash(z, z.m_d, z.own),
        *copy(z.q, z.s, needed=z.merges_by_copy),
        (FLASH, 2 * z.product(z.m_c - rest), z.s * (z.q + 2 * whole), partials),
    ]
    if rest:
        rows.append(flash(z, rest, z.prompts * z.g * rest * z.k))
    return rows + merge(z, 1 + chunks + bool(rest))


def bifurcated_flex(z: Sizes) -> list[Row]:
    """Folding, one call over the packed cache, and the output put back into its place."""
    rows, keys, block = z.samples * z.p, z.m_c + z.samples * z.m_d, 128
    visited = 0
    for start in range(0, rows, block):
        end = min(start + block, rows)
        first, last = start // z.p, (end - 1) // z.p
        seen = {token // block for token in range(z.m_c)}
        seen |= {
            token // block for token in range(z.m_c + first * z.m_d, z.m_c + (last + 1) * z.m_d)
        }
        visited += (end - start) * sum(min(block, keys - each * block) for each in seen)
    flops = 4 * z.prompts * z.g * visited * z.k
    packed = z.context + z.own
    return [
        *copy(z.q, z.s, needed=z.folds_by_copy),
        ("flex_attention", flops, z.s * (z.q + 2 * packed), z.s * z.q),
        *copy(z.q, z.s, needed=z.folds_by_copy),
    ]


EXPECTED = {
    function.__name__: function
    for function in (
        standard_einsum,
        standard_math,
        standard_flash,
        standard_flash_expanded,
        standard_rebuilt,
        standard_repeat_kv,
        bifurcated_einsum,
        bifurcated_flash,
        bifurcated_flash_chunked,
        bifurcated_flex,
    )
} | {"prefix_tree": bifurcated_flash}


def rows_of(name: str, z: Sizes, meta_inputs: Draw) -> list[Row]:
    """Trace a kernel on caches laid out as it wants them."""
    kernel = KERNELS[name]
    inputs = meta_inputs(z.prompts, z.samples, z.h, z.g, z.k, z.m_c, z.m_d)
    traced = trace(kernel.function, *lay_out(kernel.layout, *inputs))
    assert traced.launches == len(traced.operations)
    return [
        (each.name, each.flops, each.bytes_read, each.bytes_written) for each in traced.operations
    ]


@pytest.mark.parametrize("name", KERNELS)
@given(
    drawn=st.tuples(
        st.integers(1, 3),
        st.integers(1, 40),
        st.sampled_from([1, 2, 3, 8, 32]),
        st.sampled_from([1, 2, 3, 5, 7, 12]),
        st.sampled_from([64, 80, 128, 256]),
        st.sampled_from([2, 3, 5, 127, 128, 1000, 8192]),
        st.sampled_from([1, 2, 7, 64, 300]),
    )
)
@settings(deadline=None, max_examples=25)
def test_a_kernel_does_exactly_these_operations(
    name: str, drawn: tuple[int, ...], meta_inputs: Draw
) -> None:
    """Operator by operator: FLOPs, bytes read and bytes written are the formulas'."""
    z = Sizes(*drawn)
    assert rows_of(name, z, meta_inputs) == EXPECTED[name](z)


def test_a_tree_reads_each_level_once(meta_inputs: Draw) -> None:
    """Few-shot examples for four prompts, their problems, eight samples each: no level twice."""
    query, *problem, own_keys, own_values = meta_inputs(4, 8, 32, 8, 128, 200, 64)
    examples = torch.empty(1, 8, 4096, 128, dtype=torch.bfloat16, device="meta")
    levels = [[examples, keys] for keys in problem]
    levels[1][0] = torch.empty_like(examples)
    traced = trace(KERNELS["prefix_tree"].function, query, *levels, own_keys, own_values)
    calls = [each for each in traced.operations if each.name == FLASH]
    queries = query.numel()
    read = [8 * 4 * 8 * 64 * 128, 8 * 4096 * 128, 4 * 8 * 200 * 128]
    assert [each.bytes_read for each in calls] == [2 * (queries + 2 * keys) for keys in read]
    assert traced.flops == 4 * queries * (4096 + 200 + 64)


@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
def test_all_kernels_of_a_kind_do_the_same_products(attention: str, meta_inputs: Draw) -> None:
    """4 b h k (m_c + m_d) FLOPs, whatever the kernel; FlexAttention adds the masked parts."""
    z = Sizes(2, 5, 3, 7, 128, 900, 33)
    for name, kernel in KERNELS.items():
        if kernel.attention == attention:
            flops = sum(row[1] for row in rows_of(name, z, meta_inputs))
            if name == "bifurcated_flex":
                assert flops > 2 * z.product(z.m)
            else:
                assert flops == 2 * z.product(z.m)
