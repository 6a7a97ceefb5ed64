"""A model of another family of attention, scaled to be as good as before."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Any, Literal, get_args

from simulator.errors import ModelError, unknown
from simulator.inputs.files import validate
from simulator.inputs.model import LatentAttention, LayerGroup, ModelShape, count_parameters
from simulator.units import MEGA

ScaleBy = Literal["width", "depth", "mlp", "heads"]
SCALE_BY: tuple[ScaleBy, ...] = get_args(ScaleBy)

# Largest relative error of the scaled model's parameters.
SIZE_TOLERANCE = 0.01
# Largest relative change of the widths of MLP and heads over the hidden size.
SHAPE_TOLERANCE = 0.10
# Numbers of heads and MLP widths are multiples of the first of these that reaches the size.
HEAD_STEPS = (8, 4, 2, 1)
MLP_STEPS = (256, 128, 64)
HIDDEN_STEP = 128
# Widths and depths are tried up to this many times the base's.
LARGEST_GROWTH = 4
# Query heads for each KV head of gqa; public runs have three to fifteen.
GROUP_SIZE = 4
# Tokens that the windows of YOCO's first half see (arXiv 2405.05254, recalled).
YOCO_WINDOW = 1024


def scale_model(
    base: ModelShape,
    form: ModelShape,
    *,
    size_factor: float,
    scale_by: ScaleBy = "width",
    ranks: int = 1,
) -> tuple[ModelShape, float]:
    """Return a model of another family that is as good as before, and the error of its size.

    Parameters
    ----------
    base
        The model to match.
    form
        The base with the other family's attention, as of :func:`with_heads` or ``FAMILIES``.
    size_factor
        Its parameters over those of the base.
    scale_by
        ``width`` changes the heads, and the hidden size with them; ``depth`` the layers. Both keep
        the head width, and the proportions of heads and MLP to the hidden size within 10 %.
        ``mlp`` changes the width of the MLP alone, and ``heads`` the query heads, with an MLP
        within 10 % to make up for whole heads.
    ranks
        The number of heads is a multiple of this, so that a tensor-parallel group can split them.

    Raises
    ------
    ModelError
        If the model cannot be scaled, or no round sizes come within 1 % of the wanted size.

    Examples
    --------
    >>> from simulator.inputs.presets import load_model
    >>> llama = load_model("llama-2-7b")
    >>> larger, _ = scale_model(llama, with_heads(llama, 1), size_factor=1.1)
    >>> larger.hidden_size, larger.heads, larger.intermediate_size
    (4608, 36, 13056)
    """
    _check(base, form, scale_by)
    target = size_factor * count_parameters(base).total
    for mlp_step, changes in _grids(form, scale_by, ranks):
        models = (_with_mlp(form, target, mlp_step, each, scale_by) for each in changes)
        near = [
            (_disproportion(model, form, scale_by), abs(_size_error(model, target)), index, model)
            for index, model in enumerate(filter(None, models))
            if abs(_size_error(model, target)) <= SIZE_TOLERANCE
        ]
        if near:
            *_, model = min(near, key=lambda item: item[:3])
            return _named(model, base, size_factor, scale_by), _size_error(model, target)
    raise ModelError(
        f"{base.name}: no {scale_by} with round sizes gives {_kv_phrase(form)} and "
        f"{target / MEGA:,.0f} M parameters within {SIZE_TOLERANCE:.0%}; "
        f"try another of {', '.join(SCALE_BY)}, or another size factor"
    )


def with_heads(base: ModelShape, kv_heads: int) -> ModelShape:
    """Return the same model with so many KV heads, which its scaled query heads will suit."""
    return base.but(kv_heads=kv_heads)


def with_latent_cache(base: ModelShape, groups: int = 1) -> ModelShape:
    """Return the same model with latent attention, multi-head or of several groups.

    Its sizes follow DeepSeek-V2's: KV vectors four heads wide together and a rotary key half a head
    wide beside the heads' own keys and values; queries are not compressed (arXiv 2405.04434,
    recalled). GLA-2 divides the width over two vectors (arXiv 2505.21487).

    Examples
    --------
    >>> from simulator.inputs.presets import load_model
    >>> latent = with_latent_cache(load_model("llama-2-7b")).latent
    >>> latent.kv_rank, latent.rope_dim, latent.nope_dim, latent.value_dim
    (512, 64, 128, 128)
    """
    width = base.head_dim
    latent = LatentAttention(
        kv_rank=4 * width // groups,
        rope_dim=width // 2,
        groups=groups,
        nope_dim=width,
        value_dim=width,
    )
    return base.but(kv_heads=base.heads, head_dim=width + width // 2, latent=latent)


def sharing_caches(base: ModelShape, layers: int = 2) -> ModelShape:
    """Return the same model with each cache shared by some layers (CLA, arXiv 2405.12981).

    Raises
    ------
    ModelError
        If its layers are of several kinds.
    """
    group = _only_group(base)
    own = math.ceil(group.count / layers)
    return _grouped(base, group.but(count=own), group.but(count=group.count - own, kv="earlier"))


def caching_once(base: ModelShape) -> ModelShape:
    """Return the same model with windows in its first half and one cache for its second (YOCO).

    The first layer of the second half projects to the keys and values of all (arXiv 2405.05254).

    Raises
    ------
    ModelError
        If its layers are of several kinds.
    """
    group = _only_group(base)
    half = group.count // 2
    return _grouped(
        base,
        group.but(count=half, window=YOCO_WINDOW),
        group.but(count=1),
        group.but(count=group.count - half - 1, kv="earlier"),
    )


def _only_group(base: ModelShape) -> LayerGroup:
    """Return the one kind of layers whose caches may be shared."""
    if len(base.layer_groups) > 1:
        raise ModelError(f"{base.name} has layers of several kinds: they cannot share caches")
    return base.layer_groups[0]


def _grouped(base: ModelShape, *groups: LayerGroup) -> ModelShape:
    """Return the same model with its layers in these groups, as far as they have layers."""
    return base.but(layer_groups=tuple(group for group in groups if group.count))


# What makes a model one of the families that counts know, at the same width and depth.
FAMILIES: Mapping[str, Callable[[ModelShape], ModelShape]] = {
    "mqa": lambda base: with_heads(base, 1),
    "gqa": lambda base: with_heads(base, max(1, base.heads // GROUP_SIZE)),
    "mla": with_latent_cache,
    "gla": lambda base: with_latent_cache(base, groups=2),
    "cla": lambda base: sharing_caches(with_heads(base, 1)),
    "yoco": caching_once,
}


def _named(model: ModelShape, base: ModelShape, factor: float, scale_by: ScaleBy) -> ModelShape:
    """Describe a scaled model in its name and source."""
    name = base.name.removesuffix(f" with {base.kv_heads} KV heads")
    return model.but(
        name=f"{name} x {factor:.2f} with {_kv_phrase(model)}",
        source=f"{base.name}, scaled by {scale_by}; not a trained model",
    )


def _check(base: ModelShape, form: ModelShape, scale_by: ScaleBy) -> None:
    """Refuse models to which the rule does not apply."""
    if scale_by not in SCALE_BY:
        raise ModelError(unknown("scale_by", str(scale_by), SCALE_BY))
    if base.latent is not None:
        raise ModelError(f"{base.name} caches a latent vector: it has no kv_heads to change")
    if base.experts is not None:
        raise ModelError(
            f"{base.name} is a mixture of experts: the size factor is one of dense models"
        )
    if any(group.sizes for group in base.layer_groups):
        raise ModelError(f"{base.name} has layers of different sizes: no rule scales them")
    if scale_by == "depth" and len(form.layer_groups) > 1:
        raise ModelError(f"{base.name} has layers of several kinds: scale it by width")
    if scale_by in ("depth", "mlp") and form.latent is None:
        base.with_kv_heads(form.kv_heads)  # its error names the valid numbers


def _kv_phrase(form: ModelShape) -> str:
    """Write what is cached."""
    if form.latent is not None:
        groups = form.latent.groups
        return "a latent cache" if groups == 1 else f"a latent cache of {groups} groups"
    heads = "1 KV head" if form.kv_heads == 1 else f"{form.kv_heads} KV heads"
    own = sum(group.count for group in form.layer_groups if group.kv == "own")
    return heads if own == form.layers else f"{heads} in {own} of {form.layers} layers"


def _size_error(model: ModelShape, target: float) -> float:
    """Return the relative difference between a model's size and the wanted one."""
    return count_parameters(model).total / target - 1


def _disproportion(model: ModelShape, base: ModelShape, scale_by: ScaleBy) -> float:
    """Return how far the ratios of MLP and heads to the hidden size are from the base's.

    What the model is scaled by alone may change as it must.
    """

    def changed(of: Callable[[ModelShape], float]) -> float:
        return abs(of(model) / model.hidden_size / (of(base) / base.hidden_size) - 1)

    mlp = 0.0 if scale_by == "mlp" else changed(lambda shape: shape.intermediate_size)
    heads = 0.0 if scale_by == "heads" else changed(lambda shape: shape.heads * shape.head_dim)
    return max(mlp, heads)


def _grids(
    base: ModelShape, scale_by: ScaleBy, ranks: int
) -> Iterator[tuple[int, Iterable[Mapping[str, Any]]]]:
    """Yield grids of sizes, the roundest first: the step of the MLP's width, and other changes."""
    changes: Iterable[Iterable[Mapping[str, Any]]]
    if scale_by == "mlp":
        changes = [[{}]]
    elif scale_by == "depth":
        group = base.layer_groups[0]
        depths = range(1, LARGEST_GROWTH * base.layers + 1)
        changes = [[{"layers": n, "layer_groups": (group.but(count=n),)} for n in depths]]
    elif scale_by == "heads":
        changes = [_with_query_heads(base, 1, ranks, lambda _: (base.hidden_size,))]
    else:
        round_steps = [step for step in HEAD_STEPS if base.heads % step == 0]
        finer = [step for step in HEAD_STEPS if step not in round_steps]
        changes = (
            _with_query_heads(base, step, ranks, partial(_hidden_sizes, base, tied=tied))
            for steps, tied in product((round_steps, finer), (True, False))
            for step in steps
        )
    mlp_steps = [step for step in MLP_STEPS if base.intermediate_size % step == 0] or MLP_STEPS[-1:]
    yield from ((step, grid) for grid in changes for step in mlp_steps)


def _with_query_heads(
    base: ModelShape, step: int, ranks: int, hidden_sizes: Callable[[int], Iterable[int]]
) -> list[dict[str, int]]:
    """Return changes to multiples of a number of query heads, and to hidden sizes of each."""
    # Every KV head serves equally many query heads; every GPU of a group has equally many.
    shared = base.kv_heads if base.latent is None else base.latent.groups
    step = math.lcm(step, shared, ranks)
    return [
        # Every head has its own keys and values behind a latent cache.
        {"heads": heads, "hidden_size": size} | ({} if base.latent is None else {"kv_heads": heads})
        for heads in range(step, LARGEST_GROWTH * base.heads + 1, step)
        for size in hidden_sizes(heads)
    ]


def _hidden_sizes(base: ModelShape, heads: int, *, tied: bool) -> Iterable[int]:
    """Return the hidden sizes that suit a number of heads.

    If tied: heads times head width where the base has that, else the multiples of 128 on either
    side of the base's proportion. If not tied: every multiple of 128 near it.
    """
    attention_width = heads * base.head_dim
    wanted = attention_width * base.hidden_size / (base.heads * base.head_dim)
    if tied and base.hidden_size == base.heads * base.head_dim:
        return (attention_width,)
    off = 0.0 if tied else SHAPE_TOLERANCE
    first = max(1, math.floor(wanted * (1 - off) / HIDDEN_STEP))
    last = math.ceil(wanted * (1 + off) / HIDDEN_STEP)
    return range(first * HIDDEN_STEP, last * HIDDEN_STEP + 1, HIDDEN_STEP)


def _with_mlp(
    base: ModelShape, target: float, step: int, changes: Mapping[str, Any], scale_by: ScaleBy
) -> ModelShape | None:
    """Return the model whose MLP width brings it nearest to the wanted size, if near enough."""
    plain = base.but(**changes, intermediate_size=0)
    inner = plain.but(intermediate_size=step)
    least = count_parameters(plain).total
    steps = round((target - least) / (count_parameters(inner).total - least))
    model = plain.but(intermediate_size=steps * step)
    if steps < 1 or _disproportion(model, base, scale_by) > SHAPE_TOLERANCE:
        return None
    return validate(ModelShape, model.as_dict(), where=base.name, error=ModelError)
