"""scaling, tradeoff and quality: what fewer KV heads and more samples are worth."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from simulator import api
from simulator.answers.scaled import FAMILIES, SCALE_BY, ScaleBy
from simulator.answers.studies import Studies
from simulator.answers.tradeoff import PAPER_CASE, fit_runs
from simulator.cli import options as opt
from simulator.cli.output import Output, check_figure, say, write_figure
from simulator.cli.question import Question, with_question
from simulator.inputs.csv_files import RefusedRow

if TYPE_CHECKING:
    import plotly.graph_objects as go

Part = Literal["models", "crossover", "map"]
PARTS: tuple[Part, ...] = get_args(Part)
# The most refused rows to list one by one.
MOST_LISTED = 10


@opt.with_output
def _scaling(
    output: Output,
    training_runs: Annotated[
        Path,
        typer.Argument(
            help="CSV of training runs: parameters, loss, and kv_heads with heads, group_size or "
            "family; study and tokens tell sets apart.",
            metavar="RUNS",
        ),
    ],
    figure: opt.FigurePath = None,
) -> None:
    """Fit a scaling law to training runs: size factors, errors."""
    if figure is not None:
        check_figure(figure)
    result = fit_runs(training_runs)
    _say_refused(str(training_runs), result.refused)
    shown: tuple[Callable[[Any], Any], ...]
    if isinstance(result, Studies):
        from simulator.views.plots.loss_kv import studies_figure
        from simulator.views.studies import factor_rows, studies_object, studies_view

        shown = studies_view, studies_object, factor_rows, studies_figure
    else:
        from simulator.views.plots.scaling import scaling_figure
        from simulator.views.tradeoff import run_rows, scaling_object, scaling_view

        shown = scaling_view, scaling_object, run_rows, scaling_figure
    if figure is not None:
        _draw(shown[3](result), figure)
    output.write(
        table=lambda: shown[0](result),
        json_object=lambda: shown[1](result),
        rows=lambda: shown[2](result),
    )


@with_question
def _tradeoff(
    question: Question,
    output: Output,
    gpu: opt.GpuName = opt.DEFAULT_GPU,
    target_kv_heads: Annotated[
        list[int] | None,
        opt.on_model(
            "--target-kv-heads",
            text="KV heads of a model to compare with, as often as you like. Default: 1.",
            parser=opt.count,
            metavar="SIZE",
        ),
    ] = None,
    families: Annotated[
        list[str] | None,
        opt.on_model(
            "--family",
            text=f"A family to compare with instead, as often as you like: {', '.join(FAMILIES)}.",
            metavar="NAME",
        ),
    ] = None,
    size_factor: Annotated[
        list[str] | None,
        opt.on_model(
            "--size-factor",
            text="Its parameters over the model's at equal quality, one for each model; 'paper' is "
            "the paper's (multi-query 1.10). Default: that of --runs, else that of published runs, "
            "by family and --scale-by.",
            parser=lambda text: text if text == PAPER_CASE else opt.number(text),
            metavar="F",
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        opt.on_model(
            "--runs",
            text="Training runs to fit the size factors to (see 'bifurcate scaling').",
            metavar="FILE",
        ),
    ] = None,
    scale_by: Annotated[
        ScaleBy | None,
        opt.choice(
            "--scale-by",
            panel=opt.MODEL_PANEL,
            text="What makes the other models larger. Default: width, or the first of mlp and "
            "heads if published runs of the family are matched so alone.",
            of=SCALE_BY,
        ),
    ] = None,
    target_step_ms: opt.TargetStep = None,
    most_samples: Annotated[
        int | None,
        opt.size(
            "--most-samples",
            panel=opt.WORK_PANEL,
            text="Most samples to look for the crossover at. Default: 1024.",
        ),
    ] = None,
    longest_context: Annotated[
        int | None,
        opt.size(
            "--longest-context",
            panel=opt.WORK_PANEL,
            text="Longest context to look for it at. Default: 128K.",
        ),
    ] = None,
    users: Annotated[
        int | None,
        opt.size(
            "--users",
            panel=opt.WORK_PANEL,
            text="Also serve this many users, who ask again as soon as they have their answer.",
        ),
    ] = None,
    price_per_hour: opt.PricePerHour = None,
    part: Annotated[
        Part,
        opt.choice("--rows", panel=opt.OUTPUT_PANEL, text="What the rows of CSV are.", of=PARTS),
    ] = PARTS[0],
    figure: opt.FigurePath = None,
) -> None:
    """Compare models of equal quality with smaller caches."""
    if figure is not None:
        check_figure(figure)
    from simulator.views import tradeoff as view

    if runs is not None and size_factor:
        raise typer.BadParameter("--runs and --size-factor both say the size factor; give one")
    if families and target_kv_heads:
        raise typer.BadParameter("--family and --target-kv-heads both say the models; give one")
    fitted = None if runs is None else fit_runs(runs)
    if fitted is not None:
        _say_refused(str(runs), fitted.refused)
    result = api.tradeoff(
        target_kv_heads=target_kv_heads or (1,),
        families=families or (),
        size_factors=size_factor or (),
        training_runs=fitted,
        scale_by=scale_by,
        target_step_ms=target_step_ms,
        most_samples=most_samples,
        longest_context_tokens=longest_context,
        users=users,
        output_tokens=question.output_tokens,
        price_per_hour=price_per_hour,
        **question.settings(gpu=gpu),
    )
    if figure is not None:
        from simulator.views.plots.equal_quality import crossover_figure

        _draw(crossover_figure(result), figure)
    rows: dict[Part, Callable[..., Sequence[dict[str, Any]]]] = {
        "models": view.variant_rows,
        "crossover": view.crossover_rows,
        "map": view.map_rows,
    }
    output.write(
        table=lambda: view.tradeoff_view(result),
        json_object=lambda: view.tradeoff_object(result),
        rows=lambda: rows[part](result),
    )


@with_question
def _quality(
    question: Question,
    output: Output,
    gpu: opt.GpuName = opt.DEFAULT_GPU,
    success_rate: Annotated[
        float | None,
        opt.work(
            "--success-rate",
            text="Probability that a single sample is right; or give --counts.",
            parser=opt.number,
            metavar="P",
        ),
    ] = None,
    counts: Annotated[
        Path | None,
        opt.work(
            "--counts", text="CSV of tries by problem: problem, samples, correct.", metavar="FILE"
        ),
    ] = None,
    target_step_ms: opt.TargetStep = None,
    target_request_s: Annotated[
        float | None,
        opt.work(
            "--target-request-s",
            text="Longest acceptable request, with --output-tokens.",
            parser=opt.number,
            metavar="S",
        ),
    ] = None,
    most_samples: Annotated[
        int | None,
        opt.size(
            "--most-samples", panel=opt.WORK_PANEL, text="Most samples to look at. Default: 1024."
        ),
    ] = None,
    price_per_hour: opt.PricePerHour = None,
    figure: opt.FigurePath = None,
) -> None:
    """Find the pass@k that a latency buys, standard and bifurcated."""
    if figure is not None:
        check_figure(figure)
    if (success_rate is None) == (counts is None):
        raise typer.BadParameter(
            "how often a sample is right is not known; give --success-rate or --counts, one of both"
        )
    from simulator.views.quality import quality_object, quality_rows, quality_view

    result = api.quality(
        success_rate=success_rate,
        problem_counts=counts,
        output_tokens=question.output_tokens,
        target_step_ms=target_step_ms,
        target_request_s=target_request_s,
        most_samples=most_samples,
        price_per_hour=price_per_hour,
        **question.settings(gpu=gpu),
    )
    _say_refused(str(counts), result.success.refused)
    if figure is not None:
        from simulator.views.plots.quality import quality_figure

        _draw(quality_figure(result), figure)
    output.write(
        table=lambda: quality_view(result),
        json_object=lambda: quality_object(result),
        rows=lambda: quality_rows(result),
    )


def _draw(drawn: "go.Figure", path: Path) -> None:
    """Write a figure and report it on stderr."""
    write_figure(drawn, path)
    say(f"wrote {path}: {drawn.layout.meta['finding']}")


def _say_refused(path: str, refused: Sequence[RefusedRow]) -> None:
    """Name the unused rows on stderr."""
    for row in refused[:MOST_LISTED]:
        say(f"not used: {path}, line {row.line}: {row.reason}")
    if len(refused) > MOST_LISTED:
        say(f"not used: {len(refused) - MOST_LISTED} more lines of {path}")


# The commands of this module.
COMMANDS = {"scaling": _scaling, "tradeoff": _tradeoff, "quality": _quality}
