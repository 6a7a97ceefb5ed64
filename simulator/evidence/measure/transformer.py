"""One decode step of a plain PyTorch transformer: the code that ``execution = "eager"`` counts.

A decoder of a model's shape with random weights, in the style everybody writes first: one kernel
for each operation, the residual stream in the model's own type, norms computed in float32. Every
module has the name of the operation it is in :mod:`simulator.counts`, so that a trace can be
compared with an estimate operation by operation.

Tokens are rows: ``T = prompts * samples * query_tokens``, hidden states ``[T, hidden_size]``.

What changes no cost is left simple: norms come before their block wherever the model has them,
weights are random, and ALiBi and attention sinks are left out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from simulator.errors import ModelError
from simulator.evidence.measure.grid import unsupported_step
from simulator.evidence.measure.modules import (
    Attention,
    Cache,
    Embedding,
    Layer,
    Linear,
    Maker,
    Norm,
    Sampler,
    Sampling,
)
from simulator.inputs.model import LayerGroup, ModelShape

TOP_K = 200  # gpt-fast's default, and the paper's


class Decoder(nn.Module):
    """A decoder-only transformer that processes the new tokens of every sample, mostly one.

    Parameters
    ----------
    model
        Its sizes.
    position
        Position of the last new token, the same in all samples: context and decoded tokens before
        it.
    query_tokens
        New tokens of each sample; more than one need an attention kernel for several.
    sampling
        ``top_k`` samples as gpt-fast does, ``argmax`` takes the likeliest token.

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
        sampling: Sampling = "top_k",
        top_k: int = TOP_K,
    ) -> None:
        super().__init__()
        reason = unsupported_step(model)
        if reason is not None:
            raise ModelError(reason)
        self.shape = model
        made = Maker(dtype, device)
        width = model.embedding_size or model.hidden_size
        self.embedding = Embedding(model, width, made, position)
        self.embedding_projection = (
            Linear(width, model.hidden_size, made) if width != model.hidden_size else None
        )
        self.layers = nn.ModuleList(
            Layer(model, made, position, query_tokens)
            for _ in range(sum(g.count for g in model.layer_groups))
        )
        self.final_norm = Norm(model, model.hidden_size, made) if model.extra_norms else None
        self.head_projection = (
            Linear(model.hidden_size, width, made) if width != model.hidden_size else None
        )
        self.lm_head = Linear(width, model.vocab_size, made, bias=model.lm_head_bias)
        if model.tied_embeddings:
            self.lm_head.weight = self.embedding.weight
        self.sampling = Sampler(sampling, top_k)

    def place(self, tokens: int) -> None:
        """Prepare for a step of so many tokens, where the model has a table of positions."""
        self.embedding.place(tokens)

    def forward(self, tokens: Tensor, caches: Sequence[Cache], attend: Attention) -> Tensor:
        """Return the token after each, [T, 1].

        Parameters
        ----------
        tokens
            [T] int64.
        caches
            One for each layer; the last decoded tokens of each sample are the ones being processed,
            and their keys and values are written before attention reads them.
        """
        next_tokens: Tensor = self.sampling(self.logits(tokens, caches, attend))
        return next_tokens

    def logits(self, tokens: Tensor, caches: Sequence[Cache], attend: Attention) -> Tensor:
        """Return the logits after every token, [T, vocab_size]."""
        hidden = self.embedding(tokens)
        if self.embedding_projection is not None:
            hidden = self.embedding_projection(hidden)
        if self.embedding.positions is not None:
            # Positions are as wide as the layers, also where the token table is not (OPT-350m).
            hidden = self.embedding.positions(hidden)
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden = layer(hidden, cache, attend)
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        if self.head_projection is not None:
            hidden = self.head_projection(hidden)
        logits: Tensor = self.lm_head(hidden)
        return logits


def layer_windows(groups: Sequence[LayerGroup]) -> list[int | None]:
    """Return the sliding window of every layer; layers of one group follow each other."""
    return [group.window for group in groups for _ in range(group.count)]
