"""estimate, compare, generate, plan, serve and tree."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from simulator import api
from simulator.answers.rules import RULES
from simulator.cli import options as opt
from simulator.cli.output import Output, check_figure, say, write_figure
from simulator.cli.question import DEFAULT_OUTPUT_TOKENS, Question, with_question
from simulator.inputs.setup import ATTENTIONS, Attention

if TYPE_CHECKING:
    from simulator.answers.generate import Generation

Answer = TypeVar("Answer")


@with_question
def _estimate(
    question: Question,
    output: Output,
    gpu: opt.GpuName = opt.DEFAULT_GPU,
    attention: opt.AttentionName = None,
    explain: opt.Explain = False,
    check: opt.Check = False,
) -> None:
    """Estimate one decode step: time, bytes, memory, what binds."""
    from simulator.views.estimate import (
        estimate_list,
        estimate_object,
        estimate_rows,
        estimate_view,
    )

    results = _answers(question, api.estimate, gpu=gpu, attention=attention)
    _write(
        output,
        question,
        results,
        table=partial(estimate_view, explain=explain),
        listed=estimate_list,
        json_object=partial(estimate_object, explain=explain),
        rows=partial(estimate_rows, whole=len(results) > 1),
    )
    _check(check, all(result.memory.fits for result in results))


@with_question
def _compare(
    question: Question,
    output: Output,
    gpu: opt.GpuName = opt.DEFAULT_GPU,
    rule: Annotated[
        str | None,
        opt.choice(
            "--rule",
            panel=opt.WORK_PANEL,
            text="Also what a serving engine's rule would choose, and what that costs.",
            of=tuple(RULES),
        ),
    ] = None,
    explain: opt.Explain = False,
    check: opt.Check = False,
) -> None:
    """Compare standard with bifurcated attention, and advise."""
    from simulator.views.estimate import compare_list, compare_object, compare_rows, compare_view

    results = _answers(question, api.compare, gpu=gpu, rule=rule)
    _write(
        output,
        question,
        results,
        table=partial(compare_view, explain=explain),
        listed=compare_list,
        json_object=partial(compare_object, explain=explain),
        rows=compare_rows,
    )
    fits = (item.standard.memory.fits or item.bifurcated.memory.fits for item in results)
    _check(check, all(fits))


@with_question
def _generate(
    question: Question,
    output: Output,
    gpu: opt.GpuName = opt.DEFAULT_GPU,
    attention: opt.AttentionName = None,
    price_per_hour: opt.PricePerHour = None,
    check: opt.Check = False,
) -> None:
    """Follow a whole request: prefill, every step, cost."""
    from simulator.views.generate import (
        generate_list,
        generate_object,
        generate_rows,
        generate_view,
    )

    if question.decoded_tokens is not None:
        raise typer.BadParameter(
            "--decoded-tokens is a step's, and generate follows every step; give --output-tokens"
        )

    def requests(each: Question) -> "dict[Attention, Generation]":
        limits = {
            "output_tokens": each.output_tokens or DEFAULT_OUTPUT_TOKENS,
            "price_per_hour": price_per_hour,
        }
        return {
            kind: api.generate(**each.settings(gpu=gpu, attention=kind, **limits))
            for kind in ([attention] if attention else ATTENTIONS)
        }

    results = [requests(each) for each in question.each]
    _write(
        output,
        question,
        results,
        table=generate_view,
        listed=generate_list,
        json_object=generate_object,
        rows=generate_rows,
    )
    _check(check, all(any(item.memory.fits for item in each.values()) for each in results))


def _group(text: str) -> int:
    """Read a number of GPUs, and tell it from the name of one."""
    if text[:1].isalpha():
        raise typer.BadParameter(f"{text!r} is no number of GPUs; -g names a GPU: -g {text}")
    return opt.count(text)


@with_question
def _plan(
    question: Question,
    output: Output,
    gpu: Annotated[
        list[str] | None,
        opt.gpu_option("GPU to consider, as often as you like. Default: every GPU with a price."),
    ] = None,
    attention: opt.AttentionName = None,
    target_step_ms: opt.TargetStep = None,
    tensor_parallel_sizes: Annotated[
        list[int] | None,
        opt.work(
            "--gpus",
            text="Tensor-parallel size to try, as often as you like. Default: 1, 2, 4, 8.",
            parser=_group,
            metavar="SIZE",
        ),
    ] = None,
    price_per_hour: opt.PricePerHour = None,
    prices: Annotated[
        str | None,
        opt.work(
            "--prices",
            text="TOML file of your own prices: lines GPU = USD per hour, the default GPUs.",
            metavar="FILE",
        ),
    ] = None,
    requests_per_s: Annotated[
        float | None,
        opt.work(
            "--requests-per-s",
            text="Plan for requests that arrive at random, this many a second, instead of a step.",
            parser=opt.number,
            metavar="RATE",
        ),
    ] = None,
    ttft_ms: Annotated[
        float | None,
        opt.work(
            "--ttft-ms",
            text="Under load: longest acceptable time to the first token, the mean.",
            parser=opt.number,
            metavar="MS",
        ),
    ] = None,
    tpot_ms: Annotated[
        float | None,
        opt.work(
            "--tpot-ms",
            text="Under load: longest acceptable time per output token after it, the mean.",
            parser=opt.number,
            metavar="MS",
        ),
    ] = None,
    percentile: Annotated[
        float | None,
        opt.work(
            "--percentile",
            text="Under load: percentage of requests within these times, in place of the means.",
            parser=opt.number,
            metavar="PERCENT",
        ),
    ] = None,
    gpus_at_most: Annotated[
        int | None,
        opt.size("--gpus-at-most", panel=opt.WORK_PANEL, text="Under load: GPUs of all replicas."),
    ] = None,
    cached_tokens: opt.CachedTokens = None,
    most_sequences: opt.MostSequences = None,
    check: opt.Check = False,
) -> None:
    """Plan capacity: what fits, in time, on which GPU, at what cost."""
    from simulator.views.plan import plan_list, plan_object, plan_rows, plan_view

    if tensor_parallel_sizes and question.tensor_parallel is not None:
        raise typer.BadParameter("--gpus says which groups to try, --tp one; give one of both")
    if prices is not None and price_per_hour is not None:
        raise typer.BadParameter("--prices says what each GPU costs; leave out --price-per-hour")
    of_load = {
        "ttft_ms": ttft_ms,
        "tpot_ms": tpot_ms,
        "percentile": percentile,
        "gpus_at_most": gpus_at_most,
        "cached_tokens": cached_tokens,
        "most_sequences": most_sequences,
    }
    tried = {
        "gpus": opt.names_in(gpu) or None,
        "tensor_parallel_sizes": tensor_parallel_sizes,
        "attentions": attention,
        "price_per_hour": price_per_hour,
        "prices": prices,
        "tensor_parallel": question.tensor_parallel,
    }
    if requests_per_s is not None:
        if target_step_ms is not None:
            raise typer.BadParameter(
                "--target-step-ms is of a step; with --requests-per-s give --tpot-ms"
            )
        _plan_load(
            output,
            check=check,
            **question.request(requests_per_s=requests_per_s, **of_load, **tried),
        )
        return
    for name, value in of_load.items():
        if value is not None:
            flag = {"most_sequences": "max_num_seqs"}.get(name, name).replace("_", "-")
            raise typer.BadParameter(f"--{flag} is of a load; give --requests-per-s")
    results = _answers(question, api.plan, target_step_ms=target_step_ms, **tried)
    _write(
        output,
        question,
        results,
        table=plan_view,
        listed=plan_list,
        json_object=plan_object,
        rows=plan_rows,
    )
    if output.format == "csv":
        for reason in dict.fromkeys(reason for result in results for reason in result.skipped):
            say(f"skipped: {reason}")
    _check(check, all(any(option.meets_target for option in result.options) for result in results))


def _plan_load(output: Output, *, check: bool, **asked: Any) -> None:
    """Plan for requests a second."""
    from simulator.views.load import load_plan_object, load_plan_rows, load_plan_view

    result = api.plan_load(**asked)
    output.write(
        table=lambda: load_plan_view(result),
        json_object=lambda: load_plan_object(result),
        rows=lambda: load_plan_rows(result),
    )
    if output.format == "csv":
        for reason in result.skipped:
            say(f"skipped: {reason}")
    _check(check, result.options[0].verdict == "meets")


@with_question
def _serve(
    question: Question,
    output: Output,
    gpu: opt.GpuName = opt.DEFAULT_GPU,
    attention: opt.AttentionName = None,
    cached_tokens: opt.CachedTokens = None,
    most_sequences: opt.MostSequences = None,
    price_per_hour: opt.PricePerHour = None,
    figure: opt.FigurePath = None,
    check: opt.Check = False,
) -> None:
    """Follow a deployment under load: GPU and user tokens/s."""
    if figure is not None:
        check_figure(figure)
    from simulator.views.load import serve_object, serve_rows, serve_view

    result = api.serve(
        **question.request(
            gpu=gpu,
            attentions=attention or ATTENTIONS,
            cached_tokens=cached_tokens,
            most_sequences=most_sequences,
            price_per_hour=price_per_hour,
        )
    )
    if figure is not None:
        from simulator.views.plots.load import load_figure

        drawn = load_figure(result)
        write_figure(drawn, figure)
        say(f"wrote {figure}: {drawn.layout.meta['finding']}")
    output.write(
        table=lambda: serve_view(result),
        json_object=lambda: serve_object(result),
        rows=lambda: serve_rows(result),
    )
    _check(check, result.points)


@with_question
def _tree(
    question: Question, output: Output, gpu: opt.GpuName = opt.DEFAULT_GPU, check: opt.Check = False
) -> None:
    """Say which levels of a prefix tree to read once per node."""
    from simulator.views.tree import tree_object, tree_rows, tree_view

    result = api.tree(**question.settings(gpu=gpu))
    output.write(
        table=lambda: tree_view(result),
        json_object=lambda: tree_object(result),
        rows=lambda: tree_rows(result),
    )
    _check(check, result.best.result.memory.fits)


def _answers(question: Question, ask: Callable[..., Answer], **changes: Any) -> list[Answer]:
    """Answer the question for each combination of its lists."""
    return [ask(**each.settings(**changes)) for each in question.each]


def _write(
    output: Output,
    question: Question,
    results: Sequence[Answer],
    *,
    table: Callable[[Answer], Any],
    listed: Callable[[Sequence[Mapping[str, int]], Sequence[Answer]], Any],
    json_object: Callable[[Answer], Any],
    rows: Callable[[Answer], list[dict[str, Any]]],
) -> None:
    """Write the answer to a question, or those to its lists of sizes.

    Parameters
    ----------
    table, json_object, rows
        Functions that make each form of one answer.
    listed
        Makes one table of several answers, given the sizes of each.
    """
    alone = len(results) == 1
    sizes = [each.listed for each in question.each]
    output.write(
        table=lambda: table(results[0]) if alone else listed(sizes, results),
        json_object=lambda: json_object(results[0]) if alone else list(map(json_object, results)),
        rows=lambda: [row for result in results for row in rows(result)],
    )


def _check(asked: bool, holds: object) -> None:
    """Exit with the code of a failed check, if one was asked for."""
    if asked and not holds:
        raise typer.Exit(opt.CHECK_FAILED)


# The commands of this module.
COMMANDS = {
    "estimate": _estimate,
    "compare": _compare,
    "generate": _generate,
    "plan": _plan,
    "serve": _serve,
    "tree": _tree,
}
