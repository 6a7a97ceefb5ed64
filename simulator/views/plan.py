"""Answers about capacity: which option to take, of a step or under load, and a table of all."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from simulator.answers.capacity import longest_context
from simulator.answers.estimate import Estimate
from simulator.answers.launch import VERSIONS, launch_line
from simulator.answers.load import Deployment
from simulator.answers.plan import UNFIT, VERDICTS, Option, Plan
from simulator.inputs.parallelism import Parallelism
from simulator.timing.batching import closed_loop
from simulator.units import format_time
from simulator.views import columns, estimate, load, text
from simulator.views.columns import Column, Line, Row, View

# The options that a table shows, and the width that it keeps for what is said of each.
MOST_OPTIONS_SHOWN, NARROW = 16, 20
# More cards that need equally many GPUs are counted, not named.
MOST_NAMED = 4


LIMITS = (
    *columns.named("most_samples", "most_samples_surely"),
    Column(
        "most_samples_in_time",
        heading="most samples",
        cell=lambda limits: text.most(limits.most_samples_surely, limits.most_samples_in_time),
    ),
    *columns.named("longest_context_tokens", "longest_context_tokens_surely"),
    Column(
        "longest_context_tokens_in_time",
        heading="longest context",
        cell=lambda limits: text.most(
            limits.longest_context_tokens_surely, limits.longest_context_tokens_in_time
        ),
    ),
)
PRICE = (
    Column("price", "text", lambda option: option.price and option.price.told),
    Column("price_source", "text", lambda option: option.price and option.price.source),
    Column("price_comparable", "bool", "comparable"),
)
BEATEN = (Column("pareto", "bool"), Column("dominated", "bool"))
(CONSTANTS,) = columns.within(
    "deployed.rates", [Column("constants", "text", "origin", "constants", text.origin_phrase)]
)
GPU = Column("gpu", "text", heading="GPU")
LAID = columns.within("deployed", (*estimate.PARALLELISM, estimate.GROUP))
OPTION = (
    GPU,
    Column("gpus", heading="n"),
    *LAID,
    Column("attention", "text", heading="attention"),
    *columns.within(
        "result",
        columns.pick(estimate.STEP, "step", "step_ms_low", "step_ms_high", "tokens/s", "bound by"),
    ),
    *columns.pick(estimate.MEMORY, "fits", part="result.memory"),
    Column("verdict", "text"),
    Column("meets_target", "bool"),
    *BEATEN,
    columns.USD_PER_HOUR,
    columns.USD_PER_MILLION,
    *PRICE,
    *columns.within("limits", LIMITS),
    *columns.pick(
        estimate.MEMORY,
        "memory_bytes",
        "memory_bytes_low",
        "memory_bytes_high",
        "capacity_bytes",
        "memory_verdict",
        part="result.memory",
    ),
    CONSTANTS,
)
LOAD_OPTION = (
    Column("verdict", "text"),
    Column("missed", "text", lambda option: ", ".join(option.missed)),
    *BEATEN,
    GPU,
    Column("gpus", heading="GPUs"),
    *LAID,
    Column("replicas", value="point.replicas", heading="replicas"),
    *columns.within("point", (*columns.without(load.POINT, "concurrency"), *load.PERCENTILES)),
    *PRICE,
    CONSTANTS,
    Column("launch", "text", lambda option: launch_line(option.point.deployment)),
)
OPTIONS = Column("options", of=OPTION)
TARGETS = (
    Column("requests_per_s"),
    Column("ttft_ms", "ms", "ttft_s"),
    Column("tpot_ms", "ms", "tpot_s"),
    Column("percentile"),
)
LOAD_INPUTS = columns.without(load.INPUTS, "gpu", *Parallelism.fields)
# Of equal loads, the cost of a token is in proportion to that of the hour.
_SPARED = ("utilisation", "tokens/s per user", "tokens/s per GPU", "USD per million")
# What a table shows of each option of a step.
SHOWN = (
    *columns.pick(OPTION, "GPU", "n", "attention", "step"),
    *columns.within("result", [estimate.WITHIN]),
    columns.spared(CONSTANTS),
    *columns.pick(OPTION, "USD per million"),
    *map(
        columns.spared, columns.pick(OPTION, "USD/h", "tokens/s", "most samples", "longest context")
    ),
)


def plan_object(result: Plan) -> Row:
    """Return a plan as a JSON object; options are rows, best first."""
    first, request = result.options[0], result.request
    described = OPTION if request is None else LOAD_OPTION
    if request is not None:
        inputs = load.inputs(LOAD_INPUTS, first.point.deployment)
        asked: Row = {"targets": columns.as_object(TARGETS, result.targets)}
    else:
        inputs = columns.as_object(
            columns.without(estimate.INPUTS, "gpu", "attention", *Parallelism.fields), first.result
        )
        # Bifurcated options always store one context.
        layouts = (o.result.setup.kv_layout for o in result.options if o.attention == "standard")
        inputs["kv_layout"] = next(layouts, "shared")
        asked = columns.as_object([Column("target_step_ms", "ms", "target_step_s")], result.targets)
    named = {"cheapest": result.cheapest, "cheapest_maybe": result.cheapest_maybe}
    return {
        "schema_version": columns.SCHEMA_VERSION,
        "inputs": inputs,
        **asked,
        **{name: option and columns.as_object(described, option) for name, option in named.items()},
        "fewest_gpus": result.fewest_gpus,
        "options": [columns.as_object(described, option) for option in result.options],
        "skipped": list(result.skipped),
        "notes": list(_notes(result, result.options)),
    }


def plan_rows(result: Plan) -> list[Row]:
    """Return the options of a plan as tidy rows, best first."""
    if result.request is None:
        described = (*columns.within("result", estimate.ASKED), *OPTION)
        return [columns.as_object(described, option) for option in result.options]
    asked = {
        "model": result.options[0].deployed.model.name,
        **load.sizes(result.request),
        **{
            f"target_{key}": value
            for key, value in columns.as_object(TARGETS, result.targets).items()
        },
    }
    return [asked | columns.as_object(LOAD_OPTION, option) for option in result.options]


def plan_view(result: Plan) -> View:
    """Return a plan as the answer in a sentence, and a table of options."""
    best = [option for option in result.options if not option.dominated]
    near = [option for option in best if not result.is_dear(option)]
    # What misses a target of a load says why a card is out, and nothing where it is not.
    carry = {each.gpu for each in best if result.request and each.verdict != "no"}
    worth = [each for each in near if each.verdict != "no" or each.gpu not in carry]
    rows = {each.gpu for each in worth}
    gone = ", ".join(dict.fromkeys(each.gpu for each in best if each.gpu not in rows))
    whole = f" (all of {gone})" if gone else ""
    shown = worth[:MOST_OPTIONS_SHOWN]
    shown += [option for option in worth[len(shown) :] if option is result.cheapest_maybe]
    hidden = {
        "more options": len(worth) - len(shown),
        f"too dear beside the cheapest{whole}": len(best) - len(near),
        "short of a target, of cards with better ones": len(near) - len(worth),
        "that another of the same card and attention beats": len(result.options) - len(best),
    }
    told = "; ".join(f"{count} {what}" for what, count in hidden.items() if count)
    setups = [option.deployed.setup for option in shown]
    grouped = any(setup.gpus > setup.tensor_parallel for setup in setups)
    standing = Column(unit="text", cell=partial(_standing, result=result), wrap=NARROW)
    return columns.stack(
        _question(result),
        "",
        *_answers(result),
        _fewest_sentence(result),
        "",
        columns.as_table((*_shown([result], grouped=grouped), standing), shown),
        *([f"Not shown: {told}. --format csv or --json has all."] if told else []),
        *columns.notes([*_skipped(result.skipped), *_notes(result, shown)]),
    )


def plan_list(sizes: Sequence[Mapping[str, int]], results: Sequence[Plan]) -> View:
    """Return the best option of several plans as one table."""
    best = [result.cheapest or result.cheapest_maybe or result.options[0] for result in results]
    standing = Column(
        unit="text", cell=lambda pair: "" if pair[0].meets_target else _standing(*pair), wrap=NARROW
    )
    request = results[0].request
    shown = _shown(results, grouped=request is not None)
    return estimate.list_view(
        sizes,
        list(zip(best, results, strict=True)),
        (*columns.within(0, shown), standing),
        lambda pair: pair[0].result,
        output_tokens=None if request is None else request.output_tokens,
        more=[] if request is None else load.engine_notes(item.point.deployment for item in best),
        attention=False,
        gpu=False,
    )


def _question(result: Plan) -> Line:
    """Return the question as it was understood."""
    first = result.options[0]
    if isinstance(first.deployed, Deployment):
        return load.question(first.deployed, gpu=False)
    return estimate.question(first.deployed, attention=False, gpu=False)


def _shown(results: Sequence[Plan], *, grouped: bool) -> Iterable[Column]:
    """Return the columns of the table: those of a step, or of a load."""
    requests = [result.request for result in results if result.request is not None]
    if not requests:
        return (*SHOWN[:2], *(columns.pick(OPTION, "group") if grouped else ()), *SHOWN[2:])
    shares = any(request.shares for request in requests)  # else attention is the standard one
    return (
        *columns.pick(LOAD_OPTION, "GPU", "GPUs", "group", "replicas"),
        *(columns.pick(LOAD_OPTION, "attention") if shares else ()),
        *columns.within("point", load.percentiles(results[0].targets.percentile)),
        *columns.pick(LOAD_OPTION, "USD/h"),
        *map(columns.spared, columns.pick(LOAD_OPTION, *_SPARED)),
    )


def _answers(result: Plan) -> Iterator[Line]:
    """Say which option to take, and which cheaper one may do."""
    sure, maybe = result.cheapest, result.cheapest_maybe
    good = [option for option in result.options if option.verdict != "no"]
    does, may, asked = _asked(result)
    if not good:
        yield columns.line((f"No option {does}{asked}.", "bold red"))
        yield _nearest(result.options[0])
        return
    fastest = min(good, key=lambda option: (VERDICTS.index(option.verdict), option.times_s))
    if sure is not None:
        yield _sentence(f"Cheapest per hour that {does}{asked}", sure)
    elif maybe is None:
        what = does if fastest.meets_target else may
        yield _sentence(f"Fastest that {what}{asked}", fastest)
        yield columns.line("No comparable price is known; give --prices or --price-per-hour.")
    if maybe is not None:
        yield _sentence(f"Cheapest per hour that {may}{asked}", maybe)
    if sure is not None and (least := result.options[0]) is not sure and least.comparable:
        cost = text.money(least.usd_per_million_tokens, 3)
        hour = text.money(least.usd_per_hour, 2)
        yield columns.line(
            ("Least per token: ", "bold"), f"{_where(least)}, {hour} USD/h, {cost} USD per million."
        )
    chosen = (sure or maybe or fastest).found
    if isinstance(chosen, Estimate):
        return
    if line := launch_line(chosen.deployment):
        servers = f"each of {chosen.replicas} servers" if chosen.replicas > 1 else "it"
        version = VERSIONS[chosen.deployment.attention]
        yield columns.line((f"To start {servers} ({version}): ", "bold"), line)
    elif chosen.deployment.setup.bifurcated:
        yield columns.line(
            "No engine has a flag that reads each prompt once: docs/how-to/flashinfer.md"
        )


def _asked(result: Plan) -> tuple[str, str, str]:
    """Return the verb of what is asked, the same of what may do, and what it is."""
    targets = result.targets
    if result.request is None:
        if targets.target_step_s is None:
            return "fits", "may fit", ""
        return "meets ", "may meet ", format_time(targets.target_step_s)
    limits = [
        f"{name} {format_time(most)}"
        for name, most in (("TTFT", targets.ttft_s), ("TPOT", targets.tpot_s))
        if most is not None
    ]
    rate = f"{targets.requests_per_s:g} request{'s' * (targets.requests_per_s != 1)}/s"
    asked = f"{rate}{' within ' if limits else ''}{' and '.join(limits)}"
    if targets.percentile is not None and limits:
        asked += f" for {targets.percentile:g} % of them"
    return "carries ", "may carry ", asked


def _sentence(lead: str, option: Option) -> Line:
    """Say what an option is and does."""
    if isinstance(option.found, Estimate):
        step = option.found
        within = text.interval_phrase(step.step_low_s, step.step_high_s)
        does = f"{format_time(step.step_s)} per step ({within})"
        asks = option.price.told if option.price else ""
    else:
        point = option.found
        does = ", ".join(load.time_phrases(point, option.targets.percentile))
        does += f", {point.headroom:.0%} headroom"
        asks = f"{text.money(point.usd_per_month, 0)} a month"
    return columns.line(
        (f"{lead}: ", "bold"),
        (_where(option), "bold cyan"),
        f", {does}, {text.money(option.usd_per_hour, 2)} USD/h ({asks}), "
        f"{text.money(option.usd_per_million_tokens, 3)} USD per million tokens.",
    )


def _where(option: Option) -> str:
    """Say which GPUs an option has, how the model is laid over them, and its attention."""
    setup = option.deployed.setup
    laid = setup.words if setup.gpus > setup.tensor_parallel else ""
    if not isinstance(option.found, Estimate):
        replicas = option.found.replicas
        counted = text.plural(replicas, "replica") if replicas > 1 else ""
        laid = " of ".join(filter(None, (counted, setup.words)))
    within = f" ({laid})" if laid else ""
    return f"{option.gpus} x {option.gpu}{within}, {option.attention}"


def _nearest(option: Option) -> Line:
    """Say which option is nearest to the target."""
    if isinstance(option.found, Estimate) and not option.found.memory.fits:
        short = text.shortage(option.found.memory)
        return columns.line(
            f"Nothing fits in memory: {_where(option)} comes nearest, {short} short."
        )
    if not isinstance(option.found, Estimate) and not option.found.carried:
        most = f"{option.found.served.requests_per_s * option.found.replicas:.3g} requests/s"
        return columns.line(f"The most is {most}, of {_where(option)}.")
    return _sentence("Fastest that fits", option)


def _fewest_sentence(result: Plan) -> Line:
    """Say how many GPUs of each kind are needed, and which kinds never suffice."""
    may = {option.gpu for option in result.options if option.verdict == "maybe"}
    short = [gpu for gpu, size in result.fewest_gpus.items() if size is None]
    counted: dict[int, list[str]] = {}
    for gpu, size in result.fewest_gpus.items():
        if size is not None:
            counted.setdefault(size, []).append(gpu)
    said = {
        "Fewest GPUs needed": [
            f"{size} x "
            + (" or ".join(gpus) if len(gpus) <= MOST_NAMED else f"any of {len(gpus)} cards")
            for size, gpus in sorted(counted.items())
        ],
        "Perhaps, but not surely": [gpu for gpu in short if gpu in may],
        "Not with the groups tried": [gpu for gpu in short if gpu not in may],
    }
    return columns.line(" ".join(f"{lead}: {', '.join(of)}." for lead, of in said.items() if of))


def _standing(option: Option, result: Plan) -> str:
    """Say whether an option meets the targets, and what it misses."""
    marks = list(_step_marks(option) if result.request is None else _load_marks(option))
    if option.pareto and result.request is None:
        marks.insert(0, "Pareto")
    if any(option is best for best in (result.cheapest, result.cheapest_maybe)):
        marks.append("cheapest")
    if option.price and option.verdict != "no" and not option.comparable:
        marks.append("low-trust price" if option.price.low_trust else f"{option.price.terms} price")
    return ", ".join(marks)


def _step_marks(option: Option) -> Iterator[str]:
    """Say what keeps a step from its target, or puts that in doubt."""
    unfit, unknown, unsure = option.doubts
    if unsure:
        yield (
            "may not fit" if option.result.memory.verdict == "too close to call" else "does not fit"
        )
    if option.verdict == "no":
        if not unfit:
            yield "too slow"
    elif unknown:
        yield "interval not known"
    elif option.verdict == "maybe" and not unsure:
        yield "may be too slow"


def _load_marks(option: Option) -> Iterator[str]:
    """Say whether a load meets the targets, and what it misses."""
    each = option.point.deployment
    why = ", ".join(option.missed)
    if option.verdict == "no" and "load" in option.missed:
        why = f"{each.saturates} saturates"
    elif option.verdict == "no":
        why = _floor(option)
    elif option.verdict == "maybe" and each.slowest is None:
        why = "may not fit" if each.interval_known else "no interval"
    yield f"{option.verdict}: {why}" if why else option.verdict


def _floor(option: Option) -> str:
    """Say which targets are missed, and what these times are of a request alone."""
    server = option.point.deployment.server
    if server is None:
        return ""
    alone = closed_loop(server, 1)
    times = {"TTFT": alone.ttft_s, "TPOT": alone.tpot_s}
    return ", ".join(
        f"{name} ({format_time(times[name])} alone)" if name in times else name
        for name in option.missed
    )


def _skipped(reasons: Sequence[str]) -> list[str]:
    """Return what could not be tried, one note for all that does not fit."""
    others = [reason for reason in reasons if not reason.startswith(UNFIT)]
    unfit = [reason.removeprefix(UNFIT) for reason in reasons if reason not in others]
    fewer = "" if all(each.startswith("1 x ") for each in unfit) else ", or fewer"
    return [*others, *([f"A request does not fit on {', '.join(unfit)}{fewer}."] if unfit else [])]


def _notes(result: Plan, options: Sequence[Option]) -> Iterator[str]:
    """Say what the answers rest on, each thing once."""
    deployed = [option.deployed for option in options]
    if result.request is not None:
        yield from load.prefill_notes([each.setup for each in deployed])
        yield from load.engine_notes(option.point.deployment for option in options)
    yield from _price_sentences(result, options)
    yield from load.common_notes(deployed)
    if result.request is None:
        yield from _end_sentence(options)


def _price_sentences(result: Plan, options: Sequence[Option]) -> Iterator[str]:
    """Say who asks each price that is shown, and which ones rank apart, shown or not."""
    apart = (each for each in result.options if each.verdict != "no" and not each.comparable)
    prices = {each.gpu: each.price for each in (*options, *apart) if each.price is not None}
    for kind, said in (True, "USD per GPU hour"), (False, "Ranked apart, and never cheapest"):
        of_kind = {gpu: price for gpu, price in prices.items() if price.comparable == kind}
        if of_kind:
            yield f"{said}: {text.prices_phrase(of_kind)}."


def _end_sentence(options: Sequence[Option]) -> Iterator[str]:
    """Say that longest contexts end with the model, if one does."""
    first = options[0].result
    end = longest_context(first.model, first.workload)
    if any(option.limits.longest_context_tokens == end for option in options):
        own = text.plural(first.workload.decoded_tokens, "own token")
        yield f"Longest contexts end at {end:,} tokens, where {first.model.name} does with {own}."
