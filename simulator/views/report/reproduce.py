"""The part of a report that says how to get its numbers again."""

import shlex
from collections.abc import Iterable, Sequence

from simulator.answers.decision import Decision
from simulator.answers.estimate import DEFAULT_MEMORY_UTILIZATION
from simulator.inputs.workload import Workload
from simulator.views.report.html import Html, tag


def reproduce_section(
    command: str, version: str, scenario_text: str, decisions: Sequence[Decision], sweep: str
) -> Html:
    """Return the commands that give the same numbers, and the files they start from."""
    commands = [command, *(compare_command(decision) for decision in decisions), sweep]
    return tag(
        "div",
        tag("p", f"With bifurcate {version}. The first command writes this page, byte for byte."),
        tag("pre", tag("code", "\n".join(filter(None, commands)))),
        tag("p", "Profiles are named by the hash of their content, under Accuracy."),
        tag(
            "details",
            tag("summary", "The scenario's file"),
            tag("pre", tag("code", scenario_text.rstrip("\n"))),
        )
        if scenario_text
        else None,
    )


def compare_command(decision: Decision) -> str:
    """Return the command that compares a case on the scenario's first GPU."""
    estimate = decision.first.comparison.standard
    case, work = decision.case, estimate.workload
    of_tree = ("context_tokens", "prompts") if work.tree else ()
    usual = Workload()
    # Formats are always named: without them the model's own would be taken.
    always = ("samples", "context_tokens", "decoded_tokens", "weight_dtype", "kv_dtype")
    settings = {
        f"--{name.replace('_', '-')}": value
        for name, value in work.model_dump(exclude={"attention", *of_tree}).items()
        if name in always or getattr(work, name) != getattr(usual, name)
    }
    options: dict[str, object] = {
        "-m": case.name,
        **({} if case.kv_heads is None else {"--kv-heads": case.kv_heads}),
        "-g": decision.first.name,
        **settings,
    }
    if estimate.rates.choice != "auto":
        options["--constants"] = estimate.rates.choice
    if estimate.memory_utilization != DEFAULT_MEMORY_UTILIZATION:
        options["--gpu-memory-utilization"] = estimate.memory_utilization
    return joined(["bifurcate", "compare"], options.items())


def joined(start: Sequence[str], options: Iterable[tuple[str, object]]) -> str:
    """Join a command and its options as a shell reads them.

    >>> joined(["bifurcate", "compare"], [("-m", "my model"), ("-n", 4)])
    "bifurcate compare -m 'my model' -n 4"
    """
    return shlex.join([*start, *(word for name, value in options for word in (name, str(value)))])
