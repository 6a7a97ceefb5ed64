"""tree: which levels of a prefix tree to read once per node."""

import typer

from simulator import api
from simulator.cli.options import CHECK_FAILED, DEFAULT_GPU, Check, GpuName
from simulator.cli.output import Output
from simulator.cli.question import Question, with_question


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tree)


@with_question
def tree(
    question: Question, output: Output, gpu: GpuName = DEFAULT_GPU, check: Check = False
) -> None:
    """Say which levels of a prefix tree to read once per node."""
    from simulator.views.trees import tree_object, tree_rows, tree_view

    result = api.tree(**question.settings(gpu=gpu))
    output.write(
        table=lambda: tree_view(result),
        json_object=lambda: tree_object(result),
        rows=lambda: tree_rows(result),
    )
    if check and not result.best.result.memory.fits:
        raise typer.Exit(CHECK_FAILED)
