"""Answers about size factors that many studies share."""

from simulator.answers.studies import Studies
from simulator.views import columns, estimate, text
from simulator.views.columns import Column, Row, View

# Words for where the parameters go that a smaller cache frees.
FREED = {
    "mlp": "to the MLP",
    "heads": "to query heads",
    "nothing": "nowhere",
    "unknown": "not known",
}


POOLED = (
    Column("family", "text", heading="family"),
    Column("matched_by", "text", heading="freed parameters go", cell=lambda f: FREED[f.matched_by]),
    Column("papers", heading="papers", cell=lambda f: str(len(f.papers)), spare=True),
    Column("runs", heading="runs", spare=True),
    Column("size_factor", heading="size factor F", cell="{:.3f}"),
    Column("size_factor_low", value="low"),
    Column("size_factor_high", value="high"),
    Column("loss_change", heading="loss at equal size", cell="{:+.2%}"),
    Column("loss_change_low", value="loss_low"),
    Column("loss_change_high", value="loss_high"),
    Column(
        "kv_share",
        heading="KV bytes",
        cell=lambda f: "-" if f.kv_share is None else f"{f.kv_share:.3f}",
    ),
)
EXPONENT = (
    Column("paper"),
    Column("exponent", value="value"),
    *columns.named("stderr", "own"),
    Column("token_exponent", value="of_tokens"),
    Column("token_exponent_stderr", value="of_tokens_stderr"),
)
HELD_OUT = (
    Column("family"),
    Column("parameters", value="run.parameters"),
    Column("loss", value="run.loss"),
    Column("predicted_loss", value="predicted"),
    Column("error"),
)
EFFECT = (
    Column("paper"),
    Column("family", value="key.family"),
    Column("matched_by", value="key.matched_by"),
    *columns.named("runs", "lines", "log_factor", "log_factor_stderr"),
    *columns.named("log_loss", "log_loss_stderr", "kv_share"),
)
LEFT_OUT = columns.named(
    *("paper", "family", "matched_by", "size_factor", "predicted", "low", "high", "inside")
)
STUDIES = (
    estimate.SCHEMA,
    *columns.named("source", "runs", "sets"),
    Column("exponents", of=EXPONENT),
    Column("families", value="factors", of=POOLED),
    Column("effects", of=EFFECT),
    *columns.named("run_spread", "between", "inconsistency"),
    Column("held_out", of=(Column("study", value="run.study"), *HELD_OUT)),
    Column("left_out", of=LEFT_OUT),
    Column("refused", of=(Column("line"), Column("reason"))),
    Column("notes"),
)


def studies_object(result: Studies) -> Row:
    """Return pooled size factors as a JSON object."""
    return columns.as_object(STUDIES, result)


def studies_rows(result: Studies) -> list[Row]:
    """Return what each paper says of each family, one row each."""
    wanted = columns.without(EFFECT, "lines")
    return [columns.as_object(wanted, effect) for effect in result.effects]


def studies_view(result: Studies) -> View:
    """Return the families' size factors, the papers' exponents, and how well they foretell."""
    interval = Column(
        unit="text",
        heading="95 % interval",
        cell=lambda factor: f"{factor.low:.3f} to {factor.high:.3f}",
    )
    first, last = POOLED[:5], columns.pick(POOLED, "loss at equal size", "KV bytes")
    exponents = ", ".join(
        f"{each.paper} {each.value:.3f} ± {each.stderr:.3f}"
        for each in result.exponents
        if each.own
    )
    tokens = ", ".join(
        f"{each.paper} {each.of_tokens:.3f} ± {each.of_tokens_stderr:.3f}"
        for each in result.exponents
        if each.of_tokens is not None
    )
    of_tokens = f"; of tokens at equal size, γ: {tokens}" if tokens else ""
    runs = f"{text.plural(result.runs, 'training run')} of {text.plural(result.sets, 'set')}"
    return columns.stack(
        columns.line((f"Size factors over multi-head by {runs}", "bold")),
        columns.line("ln L = level of the set - β ln(N / F): one β for each paper"),
        columns.line(f"exponents β: {exponents}{of_tokens} (standard errors)"),
        columns.line(
            f"between papers ln F differs by {result.between:.3f} beyond the runs' scatter "
            f"(I² {result.inconsistency:.0%}); like runs' losses scatter by {result.run_spread:.2%}"
        ),
        "",
        columns.as_table((*first, interval, *last), result.factors),
        "",
        *([held_out(result)] if result.held_out else []),
        *([foretold(result)] if result.left_out else []),
        *columns.notes(result.notes),
    )


def held_out(result: Studies) -> str:
    """Say how well sets' smaller sizes foretell their largest one."""
    parts = []
    for study in dict.fromkeys(each.run.study for each in result.held_out):
        errors = [each.error for each in result.held_out if each.run.study == study]
        most = max(each.run.parameters for each in result.held_out if each.run.study == study)
        parts.append(
            f"{study} {text.parameters_phrase(most)} {min(errors):+.1%} to {max(errors):+.1%}"
        )
    return f"The largest size held out, from its set's smaller ones: {', '.join(parts)}."


def foretold(result: Studies) -> str:
    """Say how well other papers foretell a paper's factors."""
    left = result.left_out
    return (
        f"One paper left out: of {text.plural(len(left), 'factor')} that another paper has too, "
        f"half are foretold within {result.median_error:.0%}, and "
        f"{sum(each.inside for each in left)} are inside the interval."
    )
