"""Parameter counts, exact: people check them against the published ones."""

from dataclasses import dataclass

from simulator.inputs.model import ModelShape


@dataclass(frozen=True)
class ParameterCount:
    """Parameters of a model by the part that holds them.

    Attributes
    ----------
    embedding
        Token and position tables, and the matrices that fit a narrower token table.
    head
        The output matrix; 0 where it is the token table itself.
    attention, mlp
        Matrices and biases of all layers.
    norms
        Norm weights and biases, attention sinks included.
    active
        Parameters one token uses: all but the routed experts it does not visit.
    """

    embedding: int
    head: int
    attention: int
    mlp: int
    norms: int
    active: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.head + self.attention + self.mlp + self.norms


def count_parameters(model: ModelShape) -> ParameterCount:
    """Count the parameters of a model, to the last one.

    Examples
    --------
    >>> llama = ModelShape(name="Llama-2-7B", layers=32, hidden_size=4096, heads=32, kv_heads=32,
    ...     head_dim=128, intermediate_size=11008, vocab_size=32000)
    >>> count_parameters(llama).total
    6738415616
    """
    dense_mlp = _mlp(model, model.intermediate_size, bias=model.mlp_bias)
    sparse_layers = sum(group.count for group in model.layer_groups if group.sparse)
    mlp = (model.layers - sparse_layers) * dense_mlp
    idle = 0
    if model.experts is not None:
        experts = model.experts
        one = _mlp(model, experts.intermediate_size, bias=experts.expert_bias)
        shared = (
            _mlp(model, experts.shared_intermediate_size, bias=model.mlp_bias)
            + (model.hidden_size if experts.shared_gate else 0)
            if experts.shared_intermediate_size
            else 0
        )
        router = experts.count * (model.hidden_size + experts.router_bias)
        mlp += sparse_layers * (experts.count * one + shared + router)
        idle = sparse_layers * (experts.count - experts.per_token) * one
    width = model.embedding_size or model.hidden_size
    embedding = model.vocab_size * width + model.position_embeddings * model.hidden_size
    if width != model.hidden_size:
        # One matrix widens what comes from the table, another narrows what goes to the output.
        embedding += 2 * width * model.hidden_size
    head = 0 if model.tied_embeddings else model.vocab_size * width
    head += model.vocab_size * model.lm_head_bias
    attention = model.layers * attention_parameters(model)
    norms = _norms(model)
    total = embedding + head + attention + mlp + norms
    return ParameterCount(embedding, head, attention, mlp, norms, active=total - idle)


def attention_parameters(model: ModelShape) -> int:
    """Count the matrices and biases of one layer's attention, its norms left out."""
    d = model.hidden_size
    if model.latent is not None:
        latent = model.latent
        query_width = model.heads * (latent.nope_dim + latent.rope_dim)
        query = (
            d * query_width if latent.query_rank is None else latent.query_rank * (d + query_width)
        )
        down = d * (latent.kv_rank + latent.rope_dim)
        up = latent.kv_rank * model.heads * (latent.nope_dim + latent.value_dim)
        output = model.heads * latent.value_dim * d
        # Only the matrices that read the hidden state have biases.
        biases = (
            model.qkv_bias * ((latent.query_rank or 0) + latent.kv_rank + latent.rope_dim)
            + model.output_bias * d
        )
        return query + down + up + output + biases
    query_width = model.heads * model.head_dim
    qkv_width = query_width + 2 * model.kv_heads * model.head_dim
    return qkv_width * (d + model.qkv_bias) + d * (query_width + model.output_bias)


def _mlp(model: ModelShape, inner: int, *, bias: bool) -> int:
    """Count one MLP: two matrices up when gated, one down."""
    ups = 2 if model.gated_mlp else 1
    weights = (ups + 1) * model.hidden_size * inner
    return weights + (ups * inner + model.hidden_size if bias else 0)


def _norms(model: ModelShape) -> int:
    """Count norm weights and biases and attention sinks."""
    vectors = model.norm_weight * (2 if model.norm == "layer" and model.norm_bias else 1)
    hidden = (
        vectors * model.hidden_size * (model.layers * model.norms_per_layer + model.extra_norms)
    )
    per_layer = (
        vectors
        * {
            "none": 0,
            "head": 2 * model.head_dim,
            "all": (model.heads + model.kv_heads) * model.head_dim,
        }[model.qk_norm]
    )
    if model.latent is not None:
        per_layer += model.latent.kv_rank + (model.latent.query_rank or 0)
    if model.attention_sinks:
        per_layer += model.heads
    return hidden + model.layers * per_layer
