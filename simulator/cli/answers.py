"""estimate, compare, generate, plan, serve and tree."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from simulator import api
from simulator.answers.rules import RULES
from simulator.cli import options as opt
from simulator.cli.output import Output, check_figure, draw_answer, say
from simulator.cli.question import Asked, with_question
from simulator.inputs.setup import ATTENTIONS, Attention
from simulator.inputs.workload import DEFAULT_OUTPUT_TOKENS

if TYPE_CHECKING:
    from simulator.answers.generate import Generation

Answer = TypeVar("Answer")


@with_question(opt.ONE_GPU, opt.ATTENTION, opt.EXPLAIN, opt.CHECK)
def _estimate(question: Asked, output: Output, explain: bool, check: bool, **asked: Any) -> None:
    results = _answers(question, api.estimate, **asked)
    _write(output, question, results, explain=explain, whole=True)
    _check(check, all(result.memory.fits for result in results))


@with_question(opt.ONE_GPU, opt.of_work("rule", opt.one_of(RULES)), opt.EXPLAIN, opt.CHECK)
def _compare(question: Asked, output: Output, explain: bool, check: bool, **asked: Any) -> None:
    results = _answers(question, api.compare, **asked)
    _write(output, question, results, explain=explain)
    fits = (item.standard.memory.fits or item.bifurcated.memory.fits for item in results)
    _check(check, all(fits))


@with_question(
    opt.ONE_GPU,
    opt.ATTENTION,
    opt.of_work("users", opt.SIZE, "Also as one of so many users of a server."),
    opt.PRICE_PER_HOUR,
    opt.CHECK,
)
def _generate(
    question: Asked, output: Output, *, attention: Attention | None, check: bool, **asked: Any
) -> None:
    if question.of_step:
        raise typer.BadParameter(
            "--decoded-tokens is for one step, and generate follows all; give --output-tokens"
        )

    def request(each: Asked, kind: Attention) -> "Generation":
        tokens = each.output_tokens or DEFAULT_OUTPUT_TOKENS
        return api.generate(**each.settings(attention=kind, output_tokens=tokens, **asked))

    kinds = [attention] if attention else ATTENTIONS
    results = [{kind: request(each, kind) for kind in kinds} for each in question.each]
    _write(output, question, results)
    _check(check, all(any(item.memory.fits for item in each.values()) for each in results))


def _group(text: str) -> int:
    """Read a number of GPUs, and tell it from the name of one."""
    if text[:1].isalpha():
        raise typer.BadParameter(f"{text!r} is no number of GPUs; -g names a GPU: -g {text}")
    return opt.count(text)


PERCENTILE = opt.of_work("percentile", opt.number_of("PERCENT"))


@with_question(
    opt.gpus("GPU to consider, as often as you like. Default: every GPU with a price."),
    opt.ATTENTION,
    opt.TARGET_STEP,
    opt.of_work(
        "tensor_parallel_sizes", {"parser": _group, "metavar": "SIZE"}, kind=list[int] | None
    ),
    opt.PRICE_PER_HOUR,
    opt.of_work("prices", opt.FILE),
    *opt.LOAD[1:],
    opt.of_work("ttft_ms", opt.number_of("MS")),
    opt.of_work("tpot_ms", opt.number_of("MS")),
    PERCENTILE,
    opt.of_work("gpus_at_most", opt.SIZE, "GPUs of a group, or under load of all replicas."),
    opt.CHECK,
)
def _plan(
    question: Asked,
    output: Output,
    *,
    gpu: Sequence[str] | None,
    attention: Attention | None,
    requests_per_s: Sequence[float] | None,
    check: bool,
    **asked: Any,
) -> None:
    if asked["tensor_parallel_sizes"] and question.given["tensor_parallel"] is not None:
        raise typer.BadParameter("--gpus says which groups to try, --tp one; give only one")
    if asked["prices"] is not None and asked["price_per_hour"] is not None:
        raise typer.BadParameter("--prices says what each GPU costs; leave out --price-per-hour")
    rates: Sequence[float | None] = requests_per_s or [None]
    asked |= {"gpus": opt.names_in(gpu) or None, "attentions": attention}
    results, sizes = [], []
    for each, rate in product(question.each, rates):
        settings = each.settings if rate is None else each.request
        results.append(api.plan(**settings(requests_per_s=rate, **asked)))
        sizes.append({**each.listed, "requests/s": rate} if len(rates) > 1 else {**each.listed})
    output.write_answer(results, sizes)
    skipped = dict.fromkeys(reason for result in results for reason in result.skipped)
    for reason in skipped if output.format == "csv" else ():  # which CSV alone does not hold
        say(f"skipped: {reason}")
    _check(check, all(result.options[0].meets_target for result in results))


@with_question(
    opt.ONE_GPU, opt.ATTENTION, *opt.LOAD, PERCENTILE, opt.PRICE_PER_HOUR, opt.FIGURE, opt.CHECK
)
def _serve(
    question: Asked,
    output: Output,
    *,
    attention: Attention | None,
    figure: Path | None,
    check: bool,
    **asked: Any,
) -> None:
    check_figure(figure)
    if figure is not None:
        question.settings()  # a figure is of one question
    results = _answers(question, api.serve, load=True, attentions=attention or ATTENTIONS, **asked)
    draw_answer(results[0], figure)
    _write(output, question, results)
    _check(check, all(result.points for result in results))


@with_question(opt.ONE_GPU, opt.CHECK)
def _tree(question: Asked, output: Output, *, gpu: str, check: bool) -> None:
    result = api.tree(**question.settings(gpu=gpu))
    output.write_answer([result])
    _check(check, result.best.result.memory.fits)


def _answers(
    question: Asked, ask: Callable[..., Answer], *, load: bool = False, **changes: Any
) -> list[Answer]:
    """Answer the question, about a step or requests, for each combination of its lists."""
    return [ask(**(each.request if load else each.settings)(**changes)) for each in question.each]


def _write(output: Output, question: Asked, results: Sequence[Any], **how: Any) -> None:
    """Write the answer to a question, or those to its lists of sizes."""
    output.write_answer(results, [each.listed for each in question.each], **how)


def _check(asked: bool, holds: object) -> None:
    """Exit with the code of a failed check, if one was asked for."""
    if asked and not holds:
        raise typer.Exit(opt.CHECK_FAILED)
