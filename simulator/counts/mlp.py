"""The MLP of a layer: dense, or a mixture of experts."""

from simulator.counts.collectives import all_reduce
from simulator.counts.operation import Operation
from simulator.counts.pieces import FLOAT_BYTES, Slice, elementwise, gemm, norm, residual_add
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.model import Experts
from simulator.numeric import Numeric


def mlp(part: Slice, repeat: int, *, sparse: bool) -> list[Operation]:
    """Norms around the MLP, the MLP or its experts, and the sum over ranks."""
    model = part.model
    # A parallel block (one norm) feeds the MLP from the attention's norm; Gemma-2 has four norms.
    operations = [
        norm(part, name, repeat=repeat)
        for name in ("mlp_norm", "attention_post_norm", "mlp_post_norm")[
            : max(0, model.norms_per_layer - 1)
        ]
    ]
    if sparse and model.experts is not None:
        operations += _experts(part, model.experts, repeat)
    else:
        operations += _dense(
            part, "mlp", part.split(model.intermediate_size), bias=model.mlp_bias, repeat=repeat
        )
    operations += all_reduce(
        "mlp_all_reduce",
        message_bytes=part.rows(model.hidden_size),
        ranks=part.ranks,
        repeat=repeat,
    )
    return operations + residual_add(part, "mlp_residual", repeat=repeat)


def _dense(part: Slice, name: str, inner: Numeric, *, bias: bool, repeat: int) -> list[Operation]:
    """Return up (and gate) projection, activation, and down projection."""
    model = part.model
    ups = 2 if model.gated_mlp else 1
    kernels = ups if part.eager else 1
    return [
        gemm(
            part,
            f"{name}_up",
            model.hidden_size,
            ups * inner,
            matrices=kernels,
            bias=bias,
            repeat=repeat,
        ),
        _activation(part, f"{name}_activation", inner, repeat=repeat),
        gemm(part, f"{name}_down", inner, model.hidden_size, bias=bias, repeat=repeat),
    ]


def _activation(part: Slice, name: str, inner: Numeric, *, repeat: int) -> Operation:
    """Return the activation; of a gated MLP, times the up projection."""
    row = part.rows(inner)
    if not part.model.gated_mlp:
        return elementwise(name, row, row, repeat=repeat)
    if part.eager:
        return elementwise(name, 3 * row, 2 * row, launches=2, repeat=repeat)
    return elementwise(name, 2 * row, row, repeat=repeat)


def distinct_experts(count: int, per_token: int, tokens: Numeric) -> Numeric:
    """Return how many of ``count`` experts some of ``tokens`` tokens are expected to visit.

    Every token visits ``per_token`` experts, each expert as likely as any other.

    >>> distinct_experts(8, 2, 1), round(distinct_experts(8, 2, 16), 3)
    (2.0, 7.92)
    """
    return count * (1 - (1 - per_token / count) ** tokens)


def _experts(part: Slice, experts: Experts, repeat: int) -> list[Operation]:
    """Return a mixture-of-experts MLP: only the weights of visited experts are read.

    Tokens are sorted by expert, multiplied in two grouped products, and summed back.
    """
    model, tokens = part.model, part.tokens
    d, inner = model.hidden_size, part.split(experts.intermediate_size)
    visited = distinct_experts(experts.count, experts.per_token, tokens)
    visits = tokens * experts.per_token
    ups = 2 if model.gated_mlp else 1
    row = part.rows(d)
    # Plain PyTorch loops over the visited experts.
    loops = visited if part.eager else 1

    def grouped(name: str, rows_in: Numeric, rows_out: Numeric) -> Operation:
        weights = rows_in * rows_out * DTYPE_BYTES[part.weight_dtype]
        if experts.expert_bias:
            weights = weights + rows_out * part.element_bytes
        return Operation(
            name=name,
            kind="gemm",
            flops=2 * visits * rows_in * rows_out,
            bytes_read=visits * rows_in * part.element_bytes + visited * weights,
            bytes_written=visits * rows_out * part.element_bytes,
            weight_bytes_read=visited * weights,
            launches=loops,
            dtype=part.dtype if part.weight_dtype == "int4" else part.weight_dtype,
            repeat=repeat,
        )

    gates = tokens * experts.count * FLOAT_BYTES
    activated = visits * inner * part.element_bytes
    operations = [
        gemm(
            part,
            "router",
            d,
            experts.count,
            bias=experts.router_bias,
            dtype=part.dtype,
            repeat=repeat,
        ),
        elementwise("expert_choice", gates, visits * 8, launches=2, repeat=repeat),
        elementwise("expert_gather", row, row * experts.per_token, launches=loops, repeat=repeat),
        grouped("experts_up", d, ups * inner),
        elementwise(
            "experts_activation", ups * activated, activated, launches=loops, repeat=repeat
        ),
        grouped("experts_down", inner, d),
        elementwise("expert_sum", row * experts.per_token, row, launches=loops, repeat=repeat),
    ]
    if experts.shared_intermediate_size:
        if experts.shared_gate:
            operations.append(
                gemm(part, "shared_expert_gate", d, 1, dtype=part.dtype, repeat=repeat)
            )
        operations += _dense(
            part,
            "shared_expert",
            part.split(experts.shared_intermediate_size),
            bias=model.mlp_bias,
            repeat=repeat,
        )
    return operations
