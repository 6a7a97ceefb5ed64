"""scaling, tradeoff and quality: what fewer KV heads and more samples are worth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import typer

from simulator import api
from simulator.answers.scaled import FAMILIES, SCALE_BY
from simulator.answers.tradeoff import PAPER_CASE, fit_runs
from simulator.cli import options as opt
from simulator.cli.output import Output, check_figure, draw_answer, say_first
from simulator.cli.question import Asked, with_question
from simulator.inputs.csv_files import RefusedRow

Part = Literal["models", "crossover", "map"]
PARTS: tuple[Part, ...] = get_args(Part)


@opt.with_output(
    opt.argument("training_runs", {"metavar": "RUNS"}, kind=Path, default=...), opt.FIGURE
)
def _scaling(output: Output, *, training_runs: Path, figure: Path | None) -> None:
    check_figure(figure)
    result = fit_runs(training_runs)
    _say_refused(str(training_runs), result.refused)
    draw_answer(result, figure)
    output.write_answer([result])


@with_question(
    opt.ONE_GPU,
    opt.of_model("target_kv_heads", opt.SIZE, kind=list[int] | None),
    opt.of_model(
        "families",
        {"metavar": "NAME"},
        f"A family to compare with instead, as often as you like: {', '.join(FAMILIES)}.",
        kind=list[str] | None,
    ),
    opt.of_model(
        "size_factors",
        {"parser": lambda text: text if text == PAPER_CASE else opt.number(text), "metavar": "F"},
        kind=list[str] | None,
    ),
    opt.of_model("runs", opt.FILE),
    opt.of_model("scale_by", opt.one_of(SCALE_BY)),
    opt.TARGET_STEP,
    opt.of_work("most_samples", opt.SIZE),
    opt.of_work("longest_context_tokens", opt.SIZE),
    opt.of_work("users", opt.SIZE, "users of tradeoff", spelt="--users"),
    opt.PRICE_PER_HOUR,
    opt.of_answer("part", opt.one_of(PARTS), "What the rows of CSV are.", default=PARTS[0]),
    opt.FIGURE,
)
def _tradeoff(
    question: Asked,
    output: Output,
    *,
    runs: Path | None,
    part: Part,
    figure: Path | None,
    **asked: Any,
) -> None:
    check_figure(figure)
    if runs is not None and asked["size_factors"]:
        raise typer.BadParameter("--runs and --size-factor both say the size factor; give one")
    if asked["families"] and asked["target_kv_heads"]:
        raise typer.BadParameter("--family and --target-kv-heads both say the models; give one")
    fitted = None if runs is None else fit_runs(runs)
    if fitted is not None:
        _say_refused(str(runs), fitted.refused)
    result = api.tradeoff(
        training_runs=fitted, output_tokens=question.output_tokens, **question.settings(**asked)
    )
    draw_answer(result, figure)
    output.write_answer([result], part="" if part == PARTS[0] else f"{part}_")


@with_question(
    opt.ONE_GPU,
    opt.of_work("success_rate", opt.number_of("P")),
    opt.of_work("problem_counts", opt.FILE, "CSV of tries by problem: problem, samples, correct."),
    opt.TARGET_STEP,
    opt.of_work("target_request_s", opt.number_of("S")),
    opt.of_work("most_samples", opt.SIZE, "Most samples to look at. Default: 1024."),
    opt.PRICE_PER_HOUR,
    opt.FIGURE,
)
def _quality(question: Asked, output: Output, *, figure: Path | None, **asked: Any) -> None:
    check_figure(figure)
    if (asked["success_rate"] is None) == (asked["problem_counts"] is None):
        raise typer.BadParameter(
            "how often a sample is right is not known; give either --success-rate or --counts"
        )
    result = api.quality(output_tokens=question.output_tokens, **question.settings(**asked))
    _say_refused(str(asked["problem_counts"]), result.success.refused)
    draw_answer(result, figure)
    output.write_answer([result])


def _say_refused(path: str, refused: Sequence[RefusedRow]) -> None:
    """Name the unused rows on stderr."""
    lines = [f"not used: {path}, line {row.line}: {row.reason}" for row in refused]
    say_first(lines, lambda left: f"not used: {left} more lines of {path}")
