"""One decode step of a plain PyTorch transformer: the code that ``execution = "eager"`` counts.

A decoder of a model's shape with random weights, written as simply as possible: one kernel per
operation, the residual stream in the model's type, norms in float32. Every module has the name of
its operation in :mod:`simulator.counts`, so that a trace can be compared with an estimate operation
by operation.

Tokens are rows: ``T = prompts * samples * query_tokens``, hidden states ``[T, hidden_size]``; the
new tokens of a sample follow each other.

Details that change no cost are simplified: norms always come before their block, weights are
random, and ALiBi and attention sinks are left out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from simulator.errors import ModelError
from simulator.evidence.kernels.inputs import Inputs
from simulator.evidence.measure.grid import unsupported_step
from simulator.inputs.model import LayerGroup, ModelShape

# attend(query, context_keys, context_values, decoded_keys, decoded_values) -> output
Attention = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
# One layer's caches in the layout of its kernel; the first tensor gives the shape of queries.
Cache = Inputs

TOP_K = 200  # gpt-fast's default, and the paper's
_ROTARY_BASE = 10000.0


class Norm(nn.Module):
    """Normalise vectors: LayerNorm as one kernel, RMSNorm written out as eight."""

    def __init__(self, model: ModelShape, width: int, **made: Any) -> None:
        super().__init__()
        self.rms = model.norm == "rms"
        biased = model.norm_weight and model.norm_bias and not self.rms
        self.weight = nn.Parameter(torch.ones(width, **made)) if model.norm_weight else None
        self.bias = nn.Parameter(torch.zeros(width, **made)) if biased else None
        self.width = width

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        if not self.rms:
            return functional.layer_norm(hidden, (self.width,), self.weight, self.bias)
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        variance = wide.pow(2).mean(-1, keepdim=True)
        normed = (wide * torch.rsqrt(variance + 1e-6)).to(hidden.dtype)
        return normed if self.weight is None else normed * self.weight


class Embedding(nn.Module):
    """Look up the rows of the token table; a learned position table is a part of it."""

    def __init__(self, model: ModelShape, width: int, position: int, **made: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(model.vocab_size, width, **made))
        self.positions = Positions(model, position, **made) if model.position_embeddings else None

    def forward(self, tokens: Tensor) -> Tensor:
        """[T] -> [T, width]."""
        return functional.embedding(tokens, self.weight)


class Positions(nn.Module):
    """Add the rows of a learned position table to hidden states."""

    def __init__(self, model: ModelShape, position: int, **made: Any) -> None:
        super().__init__()
        rows = torch.empty(model.position_embeddings, model.hidden_size, **made)
        self.weight = nn.Parameter(rows)
        # The asked sizes may exceed the model's trained context.
        self.position = position % model.position_embeddings
        self.place(0)

    def place(self, tokens: int) -> None:
        """Set every token to the same position, which has the same cost."""
        self.ids = torch.full((tokens,), self.position, device=self.weight.device)

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, hidden_size] -> [T, hidden_size]."""
        if self.ids.shape[0] != hidden.shape[0]:
            self.place(hidden.shape[0])
        return hidden + functional.embedding(self.ids, self.weight)


class Rotary(nn.Module):
    """Rotate queries and keys by their positions, each in five kernels."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, head_dim: int, position: int, query_tokens: int, **made: Any) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
        positions = torch.arange(position + 1 - query_tokens, position + 1, device="cpu")
        # [query_tokens, 1, head_dim]: the same for all heads of all samples
        angles = (positions.unsqueeze(1) / _ROTARY_BASE**exponents).unsqueeze(1)
        both = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cosine", both.cos().to(**made), persistent=False)
        self.register_buffer("sine", both.sin().to(**made), persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Rotate [T, heads, head_dim].

        Five kernels: times cosine, negate a half, concatenate, times sine, add.
        """
        apart = torch.unflatten(vectors, 0, (-1, self.cosine.shape[0]))  # by sample and position
        first, second = apart.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return (apart * self.cosine + turned * self.sine).flatten(0, 1)


class QkNorm(nn.Module):
    """Norms on queries, and on keys if the layer has its own, per head or over all heads."""

    def __init__(self, model: ModelShape, **made: Any) -> None:
        super().__init__()
        self.whole = model.qk_norm == "all"
        head = model.head_dim
        self.norms = nn.ModuleList(
            Norm(model, heads * head if self.whole else head, **made)
            for heads in (model.heads, model.kv_heads)
        )

    def forward(self, *vectors: Tensor) -> list[Tensor]:
        """Normalise queries and keys, [T, heads, head_dim] each."""
        pairs = list(zip(self.norms, vectors, strict=False))
        if not self.whole:
            return [norm(each) for norm, each in pairs]
        return [norm(each.flatten(1)).view_as(each) for norm, each in pairs]


class CacheWrite(nn.Module):
    """Write the new tokens' keys and values into the last places of the decoded part."""

    def forward(self, key: Tensor, value: Tensor, cache: Cache) -> None:
        """Copy keys and values, once each.

        Parameters
        ----------
        key, value
            [T, kv_heads, head_dim]
        cache
            One layer's.
        """
        _, _, _, decoded_keys, decoded_values = cache
        for new, cached in ((key, decoded_keys), (value, decoded_values)):
            prompts, samples, kv_heads, _, head_dim = cached.shape
            by_sample = new.view(prompts, samples, -1, kv_heads, head_dim).transpose(2, 3)
            cached[..., -by_sample.shape[3] :, :].copy_(by_sample)


class Attend(nn.Module):
    """The attention kernel."""

    def forward(self, query: Tensor, cache: Cache, attend: Attention) -> Tensor:
        """Return the output, [T, heads * head_dim].

        Parameters
        ----------
        query
            [T, heads, head_dim]
        cache
            One layer's.
        attend
            The kernel.
        """
        output = attend(query.view(cache[0].shape), *cache[1:])
        return output.reshape(query.shape[0], -1)


class Add(nn.Module):
    """Add the residual."""

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """[T, hidden_size] each."""
        return residual + hidden


class Up(nn.Module):
    """The up projection and, in a gated MLP, the gate projection: one product each."""

    def __init__(self, model: ModelShape, **made: Any) -> None:
        super().__init__()
        sizes = model.hidden_size, model.intermediate_size, model.mlp_bias
        self.gate = nn.Linear(*sizes, **made) if model.gated_mlp else None
        self.up = nn.Linear(*sizes, **made)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """[T, hidden_size] -> [T, intermediate_size], twice if gated."""
        # Called as functions, so that a trace finds both products under this module's name.
        up = functional.linear(hidden, self.up.weight, self.up.bias)
        if self.gate is None:
            return up, None
        return up, functional.linear(hidden, self.gate.weight, self.gate.bias)


class Activation(nn.Module):
    """SiLU of the gate times the up projection, or GELU."""

    def forward(self, up: Tensor, gate: Tensor | None) -> Tensor:
        """[T, intermediate_size]."""
        return functional.gelu(up) if gate is None else functional.silu(gate) * up


class Layer(nn.Module):
    """Attention block and MLP block, in sequence or, with one norm, in parallel.

    A layer that shares the cache of an earlier one projects to queries alone.
    """

    def __init__(
        self,
        model: ModelShape,
        position: int,
        query_tokens: int = 1,
        *,
        shares: bool = False,
        **made: Any,
    ) -> None:
        super().__init__()
        self.shape = model
        d, width = model.hidden_size, model.heads * model.head_dim
        key = model.kv_heads * model.head_dim
        self.sizes = (width,) if shares else (width, key, key)

        def norm(needed: int) -> Norm | None:
            return Norm(model, d, **made) if model.norms_per_layer >= needed else None

        self.attention_norm, self.mlp_norm = norm(1), norm(2)
        self.attention_post_norm, self.mlp_post_norm = norm(3), norm(4)
        self.qkv_projection = nn.Linear(d, sum(self.sizes), model.qkv_bias, **made)
        self.qk_norm = QkNorm(model, **made) if model.qk_norm != "none" else None
        turns = model.head_dim, position, query_tokens
        self.rotary = Rotary(*turns, **made) if model.rotary else None
        self.kv_write, self.attention = CacheWrite(), Attend()
        self.output_projection = nn.Linear(width, d, model.output_bias, **made)
        self.attention_residual, self.mlp_residual = Add(), Add()
        self.mlp_up, self.mlp_activation = Up(model, **made), Activation()
        self.mlp_down = nn.Linear(model.intermediate_size, d, model.mlp_bias, **made)

    def forward(self, hidden: Tensor, cache: Cache, attend: Attention) -> Tensor:
        """Return the hidden states after the layer, [T, hidden_size].

        Parameters
        ----------
        hidden
            [T, hidden_size]
        cache
            This layer's.
        attend
            The attention kernel.
        """
        normed = hidden if self.attention_norm is None else self.attention_norm(hidden)
        mixed = self.attention_residual(self._attend(normed, cache, attend), hidden)
        # A parallel block feeds its MLP from the attention's norm.
        parallel = self.mlp_norm is None and self.attention_norm is not None
        source = normed if parallel else mixed
        if self.mlp_norm is not None:
            source = self.mlp_norm(mixed)
        output = self.mlp_down(self.mlp_activation(*self.mlp_up(source)))
        if self.mlp_post_norm is not None:
            output = self.mlp_post_norm(output)
        added: Tensor = self.mlp_residual(output, mixed)
        return added

    def _attend(self, normed: Tensor, cache: Cache, attend: Attention) -> Tensor:
        """Project, rotate, write the cache, attend, project back."""
        head = self.shape.head_dim
        parts = self.qkv_projection(normed).split(self.sizes, dim=-1)
        # Queries and keys; a layer that shares a cache has queries alone.
        *turned, last = (torch.unflatten(part, -1, (-1, head)) for part in parts)
        turned = turned or [last]
        if self.qk_norm is not None:
            turned = self.qk_norm(*turned)
        if self.rotary is not None:
            turned = [self.rotary(each) for each in turned]
        if len(parts) > 1:
            self.kv_write(turned[1], last, cache)
        output: Tensor = self.output_projection(self.attention(turned[0], cache, attend))
        return output if self.attention_post_norm is None else self.attention_post_norm(output)


class Sampler(nn.Module):
    """Choose the next token from the logits as gpt-fast does, from the ``top_k`` likeliest."""

    def __init__(self, top_k: int = TOP_K) -> None:
        super().__init__()
        self.top_k, self.temperature = top_k, 0.8

    def forward(self, logits: Tensor) -> Tensor:
        """[T, vocab_size] -> [T, 1]."""
        # Temperature, top-k, softmax, and exponential noise instead of a sum and search.
        scaled = logits / self.temperature
        likeliest, _ = torch.topk(scaled, min(self.top_k, logits.shape[-1]))
        scaled.masked_fill_(scaled < likeliest[:, -1:], -torch.inf)
        weights = torch.softmax(scaled, dim=-1)
        noise = torch.empty_like(weights).exponential_(1)
        return torch.argmax(weights / noise, dim=-1, keepdim=True)


class Decoder(nn.Module):
    """A decoder-only transformer that processes the query tokens of every sample.

    Parameters
    ----------
    model
        Its sizes.
    position
        Position of the last new token, the same in all samples: the number of context and decoded
        tokens before it.
    query_tokens
        New tokens of each sample.
    dtype, device
        Of the weights.

    Raises
    ------
    ModelError
        If the model has experts or a latent cache.
    """

    def __init__(
        self,
        model: ModelShape,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        position: int,
        query_tokens: int = 1,
    ) -> None:
        super().__init__()
        reason = unsupported_step(model)
        if reason is not None:
            raise ModelError(reason)
        self.shape = model
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        d, width = model.hidden_size, model.embedding_size or model.hidden_size
        self.embedding = Embedding(model, width, position, **made)
        self.embedding_projection = nn.Linear(width, d, bias=False, **made) if width != d else None
        self.layers = nn.ModuleList(
            Layer(model, position, query_tokens, shares=group.kv == "earlier", **made)
            for group in layers_of(model)
        )
        self.final_norm = Norm(model, d, **made) if model.extra_norms else None
        self.head_projection = nn.Linear(d, width, bias=False, **made) if width != d else None
        self.lm_head = nn.Linear(width, model.vocab_size, model.lm_head_bias, **made)
        if model.tied_embeddings:
            self.lm_head.weight = self.embedding.weight
        self.sampling = Sampler()
        for parameter in self.requires_grad_(requires_grad=False).parameters():
            if parameter.dim() > 1:  # a matrix, which keeps the scale of its inputs
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
            else:  # weights of norms near 1, biases near 0
                parameter.add_(torch.randn_like(parameter), alpha=0.02)

    def place(self, tokens: int) -> None:
        """Set the positions of a number of tokens, before anything is timed or traced."""
        if self.embedding.positions is not None:
            self.embedding.positions.place(tokens)

    def forward(self, tokens: Tensor, caches: Sequence[Cache], attend: Attention) -> Tensor:
        """Return the next token after each token, [T, 1].

        Parameters
        ----------
        tokens
            [T] int64.
        caches
            One per layer, the same for layers that share it; the last decoded tokens of each sample
            are the ones being processed, and their keys and values are written before attention
            reads them.
        attend
            The attention kernel.
        """
        next_tokens: Tensor = self.sampling(self.logits(tokens, caches, attend))
        return next_tokens

    def logits(self, tokens: Tensor, caches: Sequence[Cache], attend: Attention) -> Tensor:
        """Return the logits after every token, [T, vocab_size].

        Parameters
        ----------
        tokens, caches, attend
            As in :meth:`forward`.
        """
        hidden = self.embedding(tokens)
        if self.embedding_projection is not None:
            hidden = self.embedding_projection(hidden)
        if self.embedding.positions is not None:
            # Positions have the width of the layers, even if the token table differs (OPT-350m).
            hidden = self.embedding.positions(hidden)
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden = layer(hidden, cache, attend)
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        if self.head_projection is not None:
            hidden = self.head_projection(hidden)
        logits: Tensor = self.lm_head(hidden)
        return logits


def layers_of(model: ModelShape) -> list[LayerGroup]:
    """Return the group of every layer; layers of one group are consecutive."""
    return [group for group in model.layer_groups for _ in range(group.count)]
