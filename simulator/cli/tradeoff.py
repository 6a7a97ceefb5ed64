"""scaling, tradeoff and quality: what fewer KV heads and more samples are worth."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from simulator import api
from simulator.answers.scaled import FAMILIES, SCALE_BY
from simulator.answers.studies import Studies
from simulator.answers.tradeoff import PAPER_CASE, fit_runs
from simulator.cli import options as opt
from simulator.cli.output import Output, check_figure, draw, say_first
from simulator.cli.question import Question, with_question
from simulator.inputs.csv_files import RefusedRow

Part = Literal["models", "crossover", "map"]
PARTS: tuple[Part, ...] = get_args(Part)


@opt.with_output()
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
    if figure is not None:
        check_figure(figure)
    result = fit_runs(training_runs)
    _say_refused(str(training_runs), result.refused)
    drawn: Any
    forms: Any
    if isinstance(result, Studies):
        from simulator.views.plots.loss_kv import studies_figure
        from simulator.views.studies import factor_rows, studies_object, studies_view

        drawn, forms = studies_figure, (studies_view, studies_object, factor_rows)
    else:
        from simulator.views.plots.scaling import scaling_figure
        from simulator.views.tradeoff import run_rows, scaling_object, scaling_view

        drawn, forms = scaling_figure, (scaling_view, scaling_object, run_rows)
    if figure is not None:
        draw(drawn(result), figure)
    output.write(result, *forms)


@with_question(
    opt.keyword("gpu", opt.GpuName, opt.DEFAULT_GPU),
    opt.of_model(
        "target_kv_heads",
        opt.SIZE,
        "KV heads of a model to compare with, as often as you like. Default: 1.",
        kind=list[int] | None,
    ),
    opt.of_model(
        "families",
        {"metavar": "NAME"},
        f"A family to compare with instead, as often as you like: {', '.join(FAMILIES)}.",
        "--family",
        kind=list[str] | None,
    ),
    opt.of_model(
        "size_factors",
        {"parser": lambda text: text if text == PAPER_CASE else opt.number(text), "metavar": "F"},
        "Its parameters over the model's at equal quality, one for each model; 'paper' is "
        "the paper's (multi-query 1.10). Default: that of --runs, else that of published runs, "
        "by family and --scale-by.",
        "--size-factor",
        kind=list[str] | None,
    ),
    opt.of_model(
        "runs",
        opt.FILE,
        "Training runs to fit the size factors to (see 'bifurcate scaling').",
        kind=Path | None,
    ),
    opt.of_model(
        "scale_by",
        opt.one_of(SCALE_BY),
        "What makes the other models larger. Default: width, or the first of mlp and "
        "heads if published runs of the family are matched so alone.",
    ),
    opt.keyword("target_step_ms", opt.TargetStep),
    opt.of_work(
        "most_samples", opt.SIZE, "Most samples to look for the crossover at. Default: 1024."
    ),
    opt.of_work(
        "longest_context_tokens",
        opt.SIZE,
        "Longest context to look for it at. Default: 128K.",
        "--longest-context",
    ),
    opt.of_work(
        "users",
        opt.SIZE,
        "Also serve this many users, who ask again as soon as they have their answer.",
    ),
    opt.keyword("price_per_hour", opt.PricePerHour),
    opt.keyword(
        "part",
        Annotated[Part, opt.answer("--rows", "What the rows of CSV are.", opt.one_of(PARTS))],
        PARTS[0],
    ),
    opt.keyword("figure", opt.FigurePath),
)
def _tradeoff(
    question: Question,
    output: Output,
    *,
    target_kv_heads: Sequence[int] | None,
    families: Sequence[str] | None,
    size_factors: Sequence[str] | None,
    runs: Path | None,
    part: Part,
    figure: Path | None,
    **asked: Any,
) -> None:
    if figure is not None:
        check_figure(figure)
    from simulator.views import tradeoff as view

    if runs is not None and size_factors:
        raise typer.BadParameter("--runs and --size-factor both say the size factor; give one")
    if families and target_kv_heads:
        raise typer.BadParameter("--family and --target-kv-heads both say the models; give one")
    fitted = None if runs is None else fit_runs(runs)
    if fitted is not None:
        _say_refused(str(runs), fitted.refused)
    result = api.tradeoff(
        target_kv_heads=target_kv_heads or (1,),
        families=families or (),
        size_factors=size_factors or (),
        training_runs=fitted,
        output_tokens=question.output_tokens,
        **question.settings(**asked),
    )
    if figure is not None:
        from simulator.views.plots.equal_quality import crossover_figure

        draw(crossover_figure(result), figure)
    rows: dict[Part, Callable[..., Sequence[dict[str, Any]]]] = {
        "models": view.variant_rows,
        "crossover": view.crossover_rows,
        "map": view.map_rows,
    }
    output.write(result, view.tradeoff_view, view.tradeoff_object, rows[part])


@with_question(
    opt.keyword("gpu", opt.GpuName, opt.DEFAULT_GPU),
    opt.of_work(
        "success_rate",
        opt.number_of("P"),
        "Probability that a single sample is right; or give --counts.",
    ),
    opt.of_work(
        "problem_counts",
        opt.FILE,
        "CSV of tries by problem: problem, samples, correct.",
        "--counts",
        kind=Path | None,
    ),
    opt.keyword("target_step_ms", opt.TargetStep),
    opt.of_work(
        "target_request_s", opt.number_of("S"), "Longest acceptable request, with --output-tokens."
    ),
    opt.of_work("most_samples", opt.SIZE, "Most samples to look at. Default: 1024."),
    opt.keyword("price_per_hour", opt.PricePerHour),
    opt.keyword("figure", opt.FigurePath),
)
def _quality(question: Question, output: Output, *, figure: Path | None, **asked: Any) -> None:
    if figure is not None:
        check_figure(figure)
    if (asked["success_rate"] is None) == (asked["problem_counts"] is None):
        raise typer.BadParameter(
            "how often a sample is right is not known; give --success-rate or --counts, one of both"
        )
    from simulator.views.quality import quality_object, quality_rows, quality_view

    result = api.quality(output_tokens=question.output_tokens, **question.settings(**asked))
    _say_refused(str(asked["problem_counts"]), result.success.refused)
    if figure is not None:
        from simulator.views.plots.quality import quality_figure

        draw(quality_figure(result), figure)
    output.write(result, quality_view, quality_object, quality_rows)


def _say_refused(path: str, refused: Sequence[RefusedRow]) -> None:
    """Name the unused rows on stderr."""
    lines = [f"not used: {path}, line {row.line}: {row.reason}" for row in refused]
    say_first(lines, lambda left: f"not used: {left} more lines of {path}")
