"""estimate, compare, generate, plan, serve and tree."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from simulator import api
from simulator.answers.rules import RULES
from simulator.cli import options as opt
from simulator.cli.output import Output, check_figure, draw, say
from simulator.cli.question import DEFAULT_OUTPUT_TOKENS, Question, with_question
from simulator.inputs.setup import ATTENTIONS, Attention

if TYPE_CHECKING:
    from simulator.answers.generate import Generation

Answer = TypeVar("Answer")


@with_question()
def _estimate(
    question: Question,
    output: Output,
    gpu: opt.GpuName = opt.DEFAULT_GPU,
    attention: opt.AttentionName = None,
    explain: opt.Explain = False,
    check: opt.Check = False,
) -> None:
    from simulator.views import estimate as view

    results = _answers(question, api.estimate, gpu=gpu, attention=attention)
    _write(
        output,
        question,
        results,
        partial(view.estimate_view, explain=explain),
        view.estimate_list,
        partial(view.estimate_object, explain=explain),
        partial(view.estimate_rows, whole=len(results) > 1),
    )
    _check(check, all(result.memory.fits for result in results))


@with_question()
def _compare(
    question: Question,
    output: Output,
    gpu: opt.GpuName = opt.DEFAULT_GPU,
    rule: Annotated[
        str | None,
        opt.work(
            "--rule",
            "Also what a serving engine's rule would choose, and what that costs.",
            opt.one_of(RULES),
        ),
    ] = None,
    explain: opt.Explain = False,
    check: opt.Check = False,
) -> None:
    from simulator.views.estimate import compare_list, compare_object, compare_rows, compare_view

    results = _answers(question, api.compare, gpu=gpu, rule=rule)
    _write(
        output,
        question,
        results,
        partial(compare_view, explain=explain),
        compare_list,
        partial(compare_object, explain=explain),
        compare_rows,
    )
    fits = (item.standard.memory.fits or item.bifurcated.memory.fits for item in results)
    _check(check, all(fits))


@with_question()
def _generate(
    question: Question,
    output: Output,
    gpu: opt.GpuName = opt.DEFAULT_GPU,
    attention: opt.AttentionName = None,
    users: Annotated[
        int | None,
        opt.work("--users --concurrency", "Also as one of so many users of a server.", opt.SIZE),
    ] = None,
    price_per_hour: opt.PricePerHour = None,
    check: opt.Check = False,
) -> None:
    from simulator.views import generate as view

    if question.decoded_tokens is not None:
        raise typer.BadParameter(
            "--decoded-tokens is a step's, and generate follows every step; give --output-tokens"
        )

    def requests(each: Question) -> "dict[Attention, Generation]":
        limits = {
            "output_tokens": each.output_tokens or DEFAULT_OUTPUT_TOKENS,
            "users": users,
            "price_per_hour": price_per_hour,
        }
        return {
            kind: api.generate(**each.settings(gpu=gpu, attention=kind, **limits))
            for kind in ([attention] if attention else ATTENTIONS)
        }

    results = [requests(each) for each in question.each]
    forms = view.generate_view, view.generate_list, view.generate_object, view.generate_rows
    _write(output, question, results, *forms)
    _check(check, all(any(item.memory.fits for item in each.values()) for each in results))


def _group(text: str) -> int:
    """Read a number of GPUs, and tell it from the name of one."""
    if text[:1].isalpha():
        raise typer.BadParameter(f"{text!r} is no number of GPUs; -g names a GPU: -g {text}")
    return opt.count(text)


PERCENTILE = opt.of_work(
    "percentile",
    opt.number_of("PERCENT"),
    "Under load: percentage of requests within these times, in place of the means.",
)


@with_question(
    opt.keyword(
        "gpu",
        Annotated[
            list[str] | None,
            opt.gpu_option(
                "GPU to consider, as often as you like. Default: every GPU with a price."
            ),
        ],
    ),
    opt.keyword("attention", opt.AttentionName),
    opt.keyword("target_step_ms", opt.TargetStep),
    opt.of_work(
        "tensor_parallel_sizes",
        {"parser": _group, "metavar": "SIZE"},
        "Tensor-parallel size to try, as often as you like. Default: 1, 2, 4, 8.",
        "--gpus",
        kind=list[int] | None,
    ),
    opt.keyword("price_per_hour", opt.PricePerHour),
    opt.of_work(
        "prices",
        opt.FILE,
        "TOML file of your own prices: lines GPU = USD per hour, the default GPUs.",
    ),
    *opt.LOAD[1:],
    opt.of_work(
        "ttft_ms",
        opt.number_of("MS"),
        "Under load: longest acceptable time to the first token, the mean.",
    ),
    opt.of_work(
        "tpot_ms",
        opt.number_of("MS"),
        "Under load: longest acceptable time per output token after it, the mean.",
    ),
    PERCENTILE,
    opt.of_work("gpus_at_most", opt.SIZE, "GPUs of a group, or under load of all replicas."),
    opt.keyword("check", opt.Check, default=False),
)
def _plan(
    question: Question,
    output: Output,
    *,
    gpu: Sequence[str] | None,
    attention: Attention | None,
    requests_per_s: Sequence[float] | None,
    check: bool,
    **asked: Any,
) -> None:
    from simulator.views.plan import plan_list, plan_object, plan_rows, plan_view

    if asked["tensor_parallel_sizes"] and question.tensor_parallel is not None:
        raise typer.BadParameter("--gpus says which groups to try, --tp one; give one of both")
    if asked["prices"] is not None and asked["price_per_hour"] is not None:
        raise typer.BadParameter("--prices says what each GPU costs; leave out --price-per-hour")
    rates: Sequence[float | None] = requests_per_s or [None]
    asked |= {
        "gpus": opt.names_in(gpu) or None,
        "attentions": attention,
        "tensor_parallel": question.tensor_parallel,
    }
    results, sizes = [], []
    for each, rate in product(question.each, rates):
        settings = each.settings if rate is None else each.request
        results.append(api.plan(**settings(requests_per_s=rate, **asked)))
        sizes.append({**each.listed, "requests/s": rate} if len(rates) > 1 else {**each.listed})
    forms = plan_view, plan_list, plan_object, plan_rows
    _write(output, question, results, *forms, sizes=sizes)
    _say_skipped(output, dict.fromkeys(reason for result in results for reason in result.skipped))
    _check(check, all(result.options[0].meets_target for result in results))


def _say_skipped(output: Output, reasons: Iterable[str]) -> None:
    """Say what could not be tried, which CSV alone does not hold."""
    for reason in reasons if output.format == "csv" else ():
        say(f"skipped: {reason}")


@with_question(
    opt.keyword("gpu", opt.GpuName, opt.DEFAULT_GPU),
    opt.keyword("attention", opt.AttentionName),
    *opt.LOAD,
    PERCENTILE,
    opt.keyword("price_per_hour", opt.PricePerHour),
    opt.keyword("figure", opt.FigurePath),
    opt.keyword("check", opt.Check, default=False),
)
def _serve(
    question: Question,
    output: Output,
    *,
    attention: Attention | None,
    figure: Path | None,
    check: bool,
    **asked: Any,
) -> None:
    if figure is not None:
        check_figure(figure)
        question.settings()  # a figure is of one question
    from simulator.views.load import serve_list, serve_object, serve_rows, serve_view

    results = _answers(
        question, api.serve, under_load=True, attentions=attention or ATTENTIONS, **asked
    )
    if figure is not None:
        from simulator.views.plots.load import load_figure

        draw(load_figure(results[0]), figure)
    _write(output, question, results, serve_view, serve_list, serve_object, serve_rows)
    _check(check, all(result.points for result in results))


@with_question()
def _tree(
    question: Question, output: Output, gpu: opt.GpuName = opt.DEFAULT_GPU, check: opt.Check = False
) -> None:
    from simulator.views.tree import tree_object, tree_rows, tree_view

    result = api.tree(**question.settings(gpu=gpu))
    output.write(result, tree_view, tree_object, tree_rows)
    _check(check, result.best.result.memory.fits)


def _answers(
    question: Question, ask: Callable[..., Answer], *, under_load: bool = False, **changes: Any
) -> list[Answer]:
    """Answer the question, about a step or requests, for each combination of its lists."""
    return [
        ask(**(each.request if under_load else each.settings)(**changes)) for each in question.each
    ]


def _write(
    output: Output,
    question: Question,
    results: Sequence[Answer],
    table: Callable[[Answer], Any],
    listed: Callable[[Sequence[Mapping[str, int]], Sequence[Answer]], Any],
    json_object: Callable[[Answer], Any],
    rows: Callable[[Answer], list[dict[str, Any]]],
    sizes: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the answer to a question, or those to its lists of sizes.

    Parameters
    ----------
    table, json_object, rows
        Functions that make each form of one answer.
    listed
        Makes one table of several answers, given the sizes of each.
    sizes
        These, where they are not the question's alone.
    """
    if len(results) == 1:
        output.write(results[0], table, json_object, rows)
        return
    output.write(
        results,
        partial(listed, sizes or [each.listed for each in question.each]),
        lambda every: list(map(json_object, every)),
        lambda every: [row for result in every for row in rows(result)],
    )


def _check(asked: bool, holds: object) -> None:
    """Exit with the code of a failed check, if one was asked for."""
    if asked and not holds:
        raise typer.Exit(opt.CHECK_FAILED)
