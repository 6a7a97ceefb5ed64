"""estimate, compare, generate and plan."""

from typing import TYPE_CHECKING, Annotated

import typer

from simulator import api
from simulator.answers.rules import RULES
from simulator.cli.options import (
    CHECK_FAILED,
    DEFAULT_GPU,
    WORK_PANEL,
    AttentionName,
    Check,
    Explain,
    GpuName,
    PricePerHour,
    TargetStep,
    gpu_option,
)
from simulator.cli.output import Output, say
from simulator.cli.question import Question, with_question
from simulator.cli.words import choice, count
from simulator.inputs.workload import ATTENTIONS

if TYPE_CHECKING:
    from simulator.answers.generate import Generation

DEFAULT_OUTPUT_TOKENS = 256


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (estimate, compare, generate, plan):
        app.command()(command)


@with_question
def estimate(
    question: Question,
    output: Output,
    gpu: GpuName = DEFAULT_GPU,
    attention: AttentionName = None,
    explain: Explain = False,
    check: Check = False,
) -> None:
    """Estimate one decode step: time, bytes, memory, what binds."""
    from simulator.views.results import estimate_object, operation_rows

    result = api.estimate(**question.settings(gpu=gpu, attention=attention))

    def table() -> object:
        from rich.console import Group

        from simulator.views.explain import explain as derive
        from simulator.views.tables import estimate_view, explain_view

        view = estimate_view(result)
        return Group(view, explain_view(derive(result))) if explain else view

    def as_object() -> dict[str, object]:
        from simulator.views.explain import explain_objects

        extra = {"explanation": explain_objects(result)} if explain else {}
        return estimate_object(result) | extra

    output.write(table=table, json_object=as_object, rows=lambda: operation_rows(result))
    if check and not result.memory.fits:
        raise typer.Exit(CHECK_FAILED)


@with_question
def compare(
    question: Question,
    output: Output,
    gpu: GpuName = DEFAULT_GPU,
    rule: Annotated[
        str | None,
        choice(
            "--rule",
            panel=WORK_PANEL,
            text="Also what a serving engine's rule would choose, and what that costs.",
            of=tuple(RULES),
        ),
    ] = None,
    explain: Explain = False,
    check: Check = False,
) -> None:
    """Compare standard with bifurcated attention, and advise."""
    from simulator.views.results import compare_object, compare_rows

    result = api.compare(rule=rule, **question.settings(gpu=gpu))

    def table() -> object:
        from rich.console import Group
        from rich.text import Text

        from simulator.views.explain import explain as derive
        from simulator.views.tables import compare_view, explain_view

        parts = [compare_view(result)]
        if explain:
            for name in ATTENTIONS:
                parts.append(Text(f"\n{name.capitalize()} attention", style="bold underline"))
                parts.append(explain_view(derive(getattr(result, name))))
        return Group(*parts)

    def as_object() -> dict[str, object]:
        from simulator.views.explain import explain_objects

        extra = (
            {"explanation": {name: explain_objects(getattr(result, name)) for name in ATTENTIONS}}
            if explain
            else {}
        )
        return compare_object(result) | extra

    output.write(table=table, json_object=as_object, rows=lambda: compare_rows(result))
    if check and not (result.standard.memory.fits or result.bifurcated.memory.fits):
        raise typer.Exit(CHECK_FAILED)


@with_question
def generate(
    question: Question,
    output: Output,
    gpu: GpuName = DEFAULT_GPU,
    attention: AttentionName = None,
    price_per_hour: PricePerHour = None,
    check: Check = False,
) -> None:
    """Follow a whole request: prefill, every step, cost."""
    from simulator.views.results import generation_rows, generations_object

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

    def table() -> object:
        from simulator.views.tables import generations_view

        return generations_view(results)

    output.write(
        table=table,
        json_object=lambda: generations_object(results),
        rows=lambda: generation_rows(results),
    )
    if check and not any(result.memory.fits for result in results.values()):
        raise typer.Exit(CHECK_FAILED)


@with_question
def plan(
    question: Question,
    output: Output,
    gpu: Annotated[
        list[str] | None,
        gpu_option("GPU to consider, as often as you like. Default: every GPU with a price."),
    ] = None,
    attention: AttentionName = None,
    target_step_ms: TargetStep = None,
    tensor_parallel_sizes: Annotated[
        list[int] | None,
        typer.Option(
            "--gpus",
            help="Tensor-parallel size to try, as often as you like. Default: 1, 2, 4, 8.",
            rich_help_panel=WORK_PANEL,
            parser=count,
            metavar="SIZE",
        ),
    ] = None,
    price_per_hour: PricePerHour = None,
    check: Check = False,
) -> None:
    """Plan capacity: what fits, in time, on which GPU, at what cost."""
    from simulator.views.plan_results import plan_object, plan_rows

    if tensor_parallel_sizes and question.tensor_parallel is not None:
        raise typer.BadParameter("--gpus says which groups to try, --tp one; give one of both")
    result = api.plan(
        gpus=gpu,
        target_step_ms=target_step_ms,
        tensor_parallel_sizes=tensor_parallel_sizes,
        attentions=[attention] if attention else ATTENTIONS,
        price_per_hour=price_per_hour,
        **question.settings(tensor_parallel=question.tensor_parallel),
    )

    def table() -> object:
        from simulator.views.plan_tables import plan_view

        return plan_view(result)

    output.write(
        table=table,
        json_object=lambda: plan_object(result),
        rows=lambda: plan_rows(result),
    )
    if output.format == "csv":
        for reason in result.skipped:
            say(f"skipped: {reason}")
    if check and not any(option.meets_target for option in result.options):
        raise typer.Exit(CHECK_FAILED)
