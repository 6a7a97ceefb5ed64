"""Linear attention: a short convolution, then a recurrence over a state of constant size.

A layer of a gated delta rule (Gated DeltaNet, Kimi Delta Attention) keeps a matrix S [K, V] for
each value head instead of keys and values. With decay g, write strength b, and the key, value and
query of a token:

    S = g S + b k (v - (g S)^T k)^T,    o = S^T q

A decay (Mamba-2, lightning attention) only adds, S = g S + k v^T: two products instead of three. A
scan (Mamba, RG-LRU) multiplies channel by channel, without matrix products.

Decoding reads and writes every state in each step, however long the context. Prefill takes chunks
of tokens: products inside all chunks at once, then one step from chunk to chunk.

References
----------
S. Yang, J. Kautz, A. Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule", 2024;
S. Yang et al., "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", 2024;
T. Dao, A. Gu, "Transformers are SSMs", 2024 (Mamba-2);
Z. Qin et al., "Lightning Attention-2", 2024.
"""

from collections.abc import Sequence
from typing import NamedTuple

from simulator.counts.attention.shape import SharedLevel, computed_levels
from simulator.counts.operation import Operation, repeated, streamed
from simulator.counts.pieces import Shard
from simulator.inputs.model import Rule, State
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, ceil_div, minimum

# Engines keep the recurrence's state in fp32 by default (vLLM, SGLang).
STATE_BYTES = 4
# Tokens of a chunk in all libraries' kernels for delta rules.
CHUNK = 64
# Products of a token with the state: with its query, the sum of an outer product, and what its key
# recalls. A scan multiplies channels one by one: no matrix product.
PRODUCTS: dict[Rule, int] = {
    "delta": 3,
    "channel_delta": 3,
    "decay": 2,
    "scan": 0,
    "convolution": 0,
}
# Kernels inside chunks (decay sums, k k^T, its inverse, its products with k and v), and after them
# (states from chunk to chunk, outputs).
SOLVE_LAUNCHES, SCAN_LAUNCHES = 4, 2
DECAY_LAUNCHES = 5
# Gated DeltaNet forgets by head, Kimi Delta Attention by channel, which makes a step longer: 4.4
# instead of 2.95 us a chunk in fused kernels, 28 instead of 19 us inside chunks (H100 rows).
CHANNEL_DECAY_STEP = 1.5
# Tokens that a block of a convolution takes one after another.
CONVOLVED_TOKENS = 8


class LinearShape(NamedTuple):
    """Sizes of the linear attention of one layer on one GPU: numbers, or arrays that broadcast.

    Attributes
    ----------
    batch, seq_len
        Sequences, and new tokens of each: 1 in decoding.
    k_heads, k_dim, v_heads, v_dim
        Heads of queries and keys, of values and states, and their widths.
    taps
        Tokens that the convolution combines.
    chunk
        Tokens of a chunk in prefill.
    state_bytes, element_bytes
        Size of a value of the state, and of an activation. [bytes]
    rule
        What a token does to the state, see :class:`~simulator.inputs.model.State`.
    """

    batch: Numeric
    k_heads: Numeric
    k_dim: Numeric
    v_heads: Numeric
    v_dim: Numeric
    seq_len: Numeric = 1
    taps: Numeric = 4
    chunk: Numeric = CHUNK
    state_bytes: Numeric = STATE_BYTES
    element_bytes: Numeric = 2
    rule: Rule = "delta"

    @property
    def decays_by_channel(self) -> bool:
        """Whether each channel of a key decays for itself, so that queries and keys are scaled."""
        return self.rule == "channel_delta"

    @property
    def tokens(self) -> Numeric:
        """New tokens of all sequences."""
        return self.batch * self.seq_len

    @property
    def channels(self) -> Numeric:
        """Packed channels of queries, keys and values."""
        return 2 * self.k_heads * self.k_dim + self.v_heads * self.v_dim

    @property
    def states_bytes(self) -> Numeric:
        """Size of the states of all sequences. [bytes]."""
        return self.batch * self.v_heads * self.k_dim * self.v_dim * self.state_bytes

    @property
    def input_bytes(self) -> Numeric:
        """Queries, keys and values of the new tokens. [bytes]."""
        return self.tokens * self.channels * self.element_bytes

    @property
    def output_bytes(self) -> Numeric:
        """Outputs of the new tokens. [bytes]."""
        return self.tokens * self.v_heads * self.v_dim * self.element_bytes


def shape_of(shard: Shard, state: State, batch: Numeric, seq_len: Numeric) -> LinearShape:
    """Return the sizes of one layer's state on one GPU.

    Parameters
    ----------
    shard, state
        The GPU's part of the model, and the layer's state: heads are split over the GPUs; each
        has a copy of heads of keys that are fewer.
    batch, seq_len
        Sequences, and new tokens of each.
    """
    return LinearShape(
        batch=batch,
        seq_len=seq_len,
        k_heads=max(shard.split(state.k_heads), min(1, state.k_heads)),
        k_dim=state.k_dim,
        v_heads=shard.split(state.v_heads),
        v_dim=state.v_dim,
        taps=state.taps,
        chunk=state.chunk,
        element_bytes=shard.element_bytes,
        rule=state.rule,
    )


def decode(shard: Shard, state: State, work: Workload) -> list[Operation]:
    """Return the convolution and the recurrence of a decode step.

    A step that checks draft tokens keeps the state after each of them.

    Parameters
    ----------
    shard, state
        The GPU's part of the model, and the layer's state.
    work
        The sizes of the step.
    """
    shape = shape_of(shard, state, work.prompts * work.samples, work.query_tokens)
    channels, states = _channels(shard, state), work.query_tokens
    operations = []
    if state.taps:
        operations.append(convolution(shape, channels=channels, states=states, stepped=False))
    if state.values:
        operations.append(recurrence(shape, states=states))
    return operations


def prefill(
    shard: Shard, state: State, levels: Sequence[SharedLevel], work: Workload
) -> list[Operation]:
    """Return a prefill's convolutions and recurrences, and each sample's copy of the state.

    The nodes of a level go on from the states of the nodes above them.

    Parameters
    ----------
    shard, state
        The GPU's part of the model, and the layer's state.
    levels
        What the prefill computes, from the root down.
    work
        Its prompts, and the samples that get a copy.
    """
    operations = []
    for level, _, mark in computed_levels(levels):
        shape = shape_of(shard, state, level.nodes, level.tokens)
        if state.taps:
            channels = _channels(shard, state)
            convolved = convolution(shape, channels=channels, stepped=True)
            operations += repeated([convolved], 1, mark=mark)
        if state.values:
            operations += repeated(scan(shape), 1, mark=mark)
    kept = work.prompts * sequence_bytes(shard, state)
    handed_out = streamed("state_broadcast", kept, kept * work.samples, kind="copy")
    return [*operations, handed_out]


def scan(shape: LinearShape) -> list[Operation]:
    """Return the recurrence of a prefill by its rule."""
    if shape.rule in ("delta", "channel_delta"):
        return chunked_recurrence(shape)
    if shape.rule == "decay":
        return [decayed_recurrence(shape)]
    return [
        streamed(
            "recurrence",
            shape.input_bytes + shape.states_bytes,
            shape.output_bytes + shape.states_bytes,
            kind="chunk_scan",
            serial_steps=ceil_div(shape.seq_len, shape.chunk),
        )
    ]


def decayed_recurrence(shape: LinearShape) -> Operation:
    """Return the recurrence of a prefill with decays: the kernels of Mamba-2's authors.

    They sum the decays, add up the keys and values of each chunk, pass states from chunk to chunk,
    multiply queries and keys once for each head of keys, and make the outputs.
    """
    _, flops = _chunk_flops(shape)
    chunks = ceil_div(shape.seq_len, shape.chunk)
    keys = shape.tokens * shape.k_heads * shape.k_dim * shape.element_bytes
    # q k^T and a state of each chunk, in fp32.
    pairs = shape.tokens * shape.k_heads * shape.chunk * 4
    passed = shape.states_bytes / shape.state_bytes * 4 * chunks
    return Operation(
        name="recurrence",
        kind="chunk_scan",
        flops=flops,
        # Keys and values for states; keys and queries for pairs; what makes the outputs.
        bytes_read=4 * keys + 2 * shape.output_bytes + pairs + 2 * passed + shape.states_bytes,
        bytes_written=pairs + 2 * passed + shape.output_bytes + shape.states_bytes,
        launches=DECAY_LAUNCHES,
        serial_steps=chunks,
    )


def sequence_bytes(shard: Shard, state: State) -> Numeric:
    """Bytes of one sequence's state in one layer on one GPU: of the recurrence and convolution."""
    convolved = _channels(shard, state) * max(0, state.taps - 1)
    return shard.split(state.values) * STATE_BYTES + convolved * shard.element_bytes


def _channels(shard: Shard, state: State) -> Numeric:
    """Return the channels of the convolution on one GPU."""
    return shard.split(state.channels) + state.copied_columns(shard.ranks)


def convolution(
    shape: LinearShape, *, channels: Numeric | None = None, states: Numeric = 1, stepped: bool
) -> Operation:
    """Return the short convolution over each channel, which keeps the last ``taps - 1`` inputs.

    Parameters
    ----------
    shape
        The sizes.
    channels
        Channels, if not all of queries, keys and values.
    states
        States written for each sequence: one, or one for each draft token that may be refused.
    stepped
        Whether a block takes tokens one after another, as in prefill.
    """
    width = shape.channels if channels is None else channels
    moved = shape.tokens * width * shape.element_bytes
    kept = shape.batch * width * (shape.taps - 1) * shape.element_bytes
    return streamed(
        "convolution",
        moved + kept,
        moved + states * kept,
        kind="convolution",
        serial_steps=minimum(shape.seq_len, CONVOLVED_TOKENS) if stepped else 0,
    )


def recurrence(shape: LinearShape, *, states: Numeric = 1) -> Operation:
    """Return the recurrence, one token after another: a decode step or the check of draft tokens.

    Parameters
    ----------
    shape
        The sizes.
    states
        States written for each sequence: one, or one for each draft token that may be refused.
    """
    products = PRODUCTS[shape.rule] * 2 * shape.k_dim * shape.v_dim
    return Operation(
        name="recurrence",
        kind="recurrence",
        flops=shape.tokens * shape.v_heads * products,
        bytes_read=shape.input_bytes + shape.states_bytes,
        bytes_written=shape.output_bytes + states * shape.states_bytes,
        serial_steps=shape.seq_len - 1,
    )


def chunked_recurrence(shape: LinearShape) -> list[Operation]:
    """Return the recurrence of a prefill: kernels inside chunks, then from one to the next."""
    solve_flops, scan_flops = _chunk_flops(shape)
    by_channel, chunks = shape.decays_by_channel, ceil_div(shape.seq_len, CHUNK)
    step = CHANNEL_DECAY_STEP if by_channel else 1
    heads, element = shape.tokens * shape.v_heads, shape.element_bytes
    keys, values = heads * shape.k_dim * element, heads * shape.v_dim * element
    # k k^T is in fp32, its inverse in the format of the activations, like a state of each chunk.
    square, inverse = heads * CHUNK * 4, heads * CHUNK * element
    passed = shape.states_bytes / shape.state_bytes * element * chunks
    # With decays by channel: the decays, their sums in fp32, queries, and what they scale.
    sums = heads * shape.k_dim * 4
    decays_read = 2 * keys + 2 * sums if by_channel else 0
    decays_written = sums + inverse + 2 * keys if by_channel else 0
    return [
        Operation(
            name="chunk_solve",
            kind="chunk_solve",
            flops=solve_flops,
            bytes_read=2 * keys + square + inverse + values + decays_read,
            bytes_written=keys + square + inverse + values + decays_written,
            launches=SOLVE_LAUNCHES + by_channel,
            serial_steps=(minimum(shape.seq_len, CHUNK) - 1) * step,
        ),
        Operation(
            name="recurrence",
            kind="chunk_scan",
            flops=scan_flops,
            # Keys and the solve's results; then queries, keys, new values and states.
            bytes_read=4 * keys + 2 * values + passed + shape.states_bytes,
            bytes_written=values + passed + shape.output_bytes + shape.states_bytes,
            launches=SCAN_LAUNCHES,
            serial_steps=chunks * step,
        ),
    ]


def fused_recurrence(shape: LinearShape) -> Operation:
    """Return the recurrence of a prefill in one kernel, with a thread block for each state.

    With decays by channel another kernel scales queries and keys.
    """
    step = CHANNEL_DECAY_STEP if shape.decays_by_channel else 1
    keys = shape.tokens * shape.v_heads * shape.k_dim * shape.element_bytes
    # Queries, keys and decays are read, the scaled ones written.
    scaled = keys if shape.decays_by_channel else 0
    return Operation(
        name="recurrence",
        kind="fused_scan",
        flops=sum(_chunk_flops(shape)),
        bytes_read=shape.input_bytes + shape.states_bytes + 3 * scaled,
        bytes_written=shape.output_bytes + shape.states_bytes + 2 * scaled,
        launches=1 + shape.decays_by_channel,
        serial_steps=ceil_div(shape.seq_len, CHUNK) * step,
        thread_blocks=shape.batch * shape.v_heads,
    )


def _chunk_flops(shape: LinearShape) -> tuple[Numeric, Numeric]:
    """Return the FLOPs inside chunks and after them."""
    heads, k, v = shape.tokens * shape.v_heads, shape.k_dim, shape.v_dim
    if shape.rule == "decay":
        # q k^T once for all values of a head of keys; its product with v, k v^T and S^T q.
        pairs = shape.tokens * shape.k_heads * 2 * shape.chunk * k
        return 0, pairs + heads * (2 * shape.chunk * v + PRODUCTS["decay"] * 2 * k * v)
    # For each token: k k^T, and its inverse times k and v.
    solve = heads * 2 * CHUNK * (2 * k + v)
    # S^T k, k v^T and S^T q; then q k^T, and its product with v.
    return solve, heads * (PRODUCTS[shape.rule] * 2 * k * v + 2 * CHUNK * (k + v))
