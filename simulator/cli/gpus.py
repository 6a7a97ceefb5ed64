"""gpus: list those known by name, show one with its sources, check profiles."""

from typing import Annotated

import typer

from simulator.cli.catalog import add_group, finish_check, read_all, write_rows
from simulator.cli.options import with_output
from simulator.cli.output import Output
from simulator.cli.words import complete_gpus


def register(app: typer.Typer) -> None:
    """Add the command group."""
    add_group(
        app,
        "gpus",
        "List GPUs, show one with its sources, or check profiles.",
        list_gpus,
        show=show_gpu,
        check=check_gpus,
    )


@with_output
def list_gpus(output: Output) -> None:
    """List the GPUs that are known by name."""
    from simulator.inputs.hardware import profile_files, read_profile

    rows = []
    for path in profile_files().values():
        profile = read_profile(path)
        half = profile.peak.bf16_tflops or profile.peak.fp16_tflops
        price = profile.price_usd_per_hour
        rows.append(
            {
                "gpu": profile.id,
                "name": profile.name,
                "memory_gb": profile.peak.memory_gb.value,
                "bandwidth_gb_per_s": profile.peak.memory_bandwidth_gb_per_s.value,
                "half_tflops": half.value,
                "l2_mib": profile.peak.l2_mib.value,
                "usd_per_hour": None if price is None else price.value,
                "constants": "fitted" if profile.fitted else "carried",
            }
        )
    write_rows(output, rows)


@with_output
def show_gpu(
    output: Output,
    name: Annotated[
        str, typer.Argument(help="GPU or path.", metavar="GPU", autocompletion=complete_gpus)
    ],
) -> None:
    """Show a GPU's figures and constants, with sources."""
    from simulator.inputs.hardware import load_hardware
    from simulator.timing.constants import EIGHT_BIT, rates

    profile = load_hardware(name)
    of_card = rates(profile)
    constants = {
        **of_card.constants,
        **{
            key.of(EIGHT_BIT): item
            for key, item in of_card.low_precision.constants.items()
            if item != of_card.constants[key]
        },
    }
    answer = {
        **profile.model_dump(mode="json", exclude_none=True),
        "hash": profile.content_hash,
        "constants": {
            str(key): {"value": item.value, "origin": item.origin, "source": item.source}
            for key, item in constants.items()
        },
    }
    rows = [
        {"figure": f"{table}.{key}", "value": figure["value"], "source": figure["source"]}
        for table in ("peak", "measured", "fitted")
        for key, figure in answer.get(table, {}).items()
    ]
    if "price_usd_per_hour" in answer:
        rows.append({"figure": "price_usd_per_hour", **answer["price_usd_per_hour"]})
    rows += [
        {
            "figure": f"constant {key}",
            "value": item["value"],
            "source": f"{item['origin']}: {item['source']}",
        }
        for key, item in answer["constants"].items()
        if item["origin"] != "fitted"
    ]

    def table() -> object:
        from rich.console import Group
        from rich.text import Text

        from simulator.views.table import notes, simple_table

        aliases = ", ".join(profile.aliases)
        head = f"{profile.name}   {profile.vendor} {profile.architecture}, confidence "
        lines = [f"also called: {aliases}"] if aliases else []
        lines += [f"hash {profile.content_hash}, figures retrieved {profile.retrieved}"]
        lines += [profile.notes] if profile.notes else []
        return Group(
            Text(f"{head}{profile.confidence}", style="bold"),
            *notes(lines),
            Text(),
            simple_table(list(rows[0]), [list(row.values()) for row in rows]),
        )

    output.write(table=table, json_object=lambda: answer, rows=lambda: rows)


def check_gpus(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Profiles to check. Default: all that are found.", metavar="FILE"),
    ] = None,
) -> None:
    """Check profiles against arithmetic and plausibility."""
    from simulator.inputs.hardware import profile_files, read_profile
    from simulator.inputs.hardware_check import check_aliases, check_profile

    names = files or [str(path) for path in profile_files().values()]
    profiles, findings = read_all(names, read_profile)
    for profile in profiles:
        findings += [f"{profile.id}: {line}" for line in check_profile(profile)]
    findings += check_aliases(profiles)
    finish_check(findings, len(names), "profile")
