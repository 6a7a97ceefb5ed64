"""estimate, compare, generate, plan and tree."""

from typing import TYPE_CHECKING, Annotated

import typer

from simulator import api
from simulator.answers.rules import RULES
from simulator.cli import options as opt
from simulator.cli.output import Output, say
from simulator.cli.question import Question, with_question
from simulator.inputs.setup import ATTENTIONS

if TYPE_CHECKING:
    from simulator.answers.generate import Generation

DEFAULT_OUTPUT_TOKENS = 256


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
    from simulator.views.estimate import estimate_object, estimate_rows, estimate_view

    result = api.estimate(**question.settings(gpu=gpu, attention=attention))
    output.write(
        table=lambda: estimate_view(result, explain=explain),
        json_object=lambda: estimate_object(result, explain=explain),
        rows=lambda: estimate_rows(result),
    )
    _check(check, result.memory.fits)


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
    from simulator.views.estimate import compare_object, compare_rows, compare_view

    result = api.compare(rule=rule, **question.settings(gpu=gpu))
    output.write(
        table=lambda: compare_view(result, explain=explain),
        json_object=lambda: compare_object(result, explain=explain),
        rows=lambda: compare_rows(result),
    )
    _check(check, result.standard.memory.fits or result.bifurcated.memory.fits)


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
    from simulator.views.generate import generate_object, generate_rows, generate_view

    if question.decoded_tokens is not None:
        raise typer.BadParameter(
            "--decoded-tokens is a step's; generate follows every step to the last of "
            "--output-tokens"
        )
    results: dict[str, Generation] = {
        name: api.generate(
            output_tokens=DEFAULT_OUTPUT_TOKENS
            if question.output_tokens is None
            else question.output_tokens,
            price_per_hour=price_per_hour,
            **question.settings(gpu=gpu, attention=name),
        )
        for name in ([attention] if attention else ATTENTIONS)
    }
    output.write(
        table=lambda: generate_view(results),
        json_object=lambda: generate_object(results),
        rows=lambda: generate_rows(results),
    )
    _check(check, any(result.memory.fits for result in results.values()))


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
            parser=opt.count,
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
    check: opt.Check = False,
) -> None:
    """Plan capacity: what fits, in time, on which GPU, at what cost."""
    from simulator.views.plan import plan_object, plan_rows, plan_view

    if tensor_parallel_sizes and question.tensor_parallel is not None:
        raise typer.BadParameter("--gpus says which groups to try, --tp one; give one of both")
    if prices is not None and price_per_hour is not None:
        raise typer.BadParameter("--prices says what each GPU costs; leave out --price-per-hour")
    result = api.plan(
        gpus=gpu,
        target_step_ms=target_step_ms,
        tensor_parallel_sizes=tensor_parallel_sizes,
        attentions=attention,
        price_per_hour=price_per_hour,
        prices=prices,
        **question.settings(tensor_parallel=question.tensor_parallel),
    )
    output.write(
        table=lambda: plan_view(result),
        json_object=lambda: plan_object(result),
        rows=lambda: plan_rows(result),
    )
    if output.format == "csv":
        for reason in result.skipped:
            say(f"skipped: {reason}")
    _check(check, any(option.meets_target for option in result.options))


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
    "tree": _tree,
}
