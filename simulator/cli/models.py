"""models: list those known by name, show one."""

from typing import Annotated

import typer

from simulator.cli.catalog import add_group, write_facts, write_rows
from simulator.cli.options import with_output
from simulator.cli.output import Output
from simulator.cli.words import complete_models, complete_types, count

KvHeads = Annotated[
    int | None,
    typer.Option(
        "--kv-heads", help="What if it had so many KV heads.", parser=count, metavar="SIZE"
    ),
]

Assume = Annotated[
    str | None,
    typer.Option(
        "--assume",
        help="Model type to read an unknown config.json as.",
        metavar="TYPE",
        autocompletion=complete_types,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command group."""
    add_group(app, "models", "List models, or show one.", list_models, show=show_model)


@with_output
def list_models(output: Output) -> None:
    """List the models that are known by name."""
    from simulator.inputs.model import count_parameters
    from simulator.inputs.presets import load_model, presets

    rows = []
    for name in presets():
        shape = load_model(name)
        rows.append(
            {
                "model": name,
                "family": shape.family,
                "parameters": count_parameters(shape).total,
                "layers": shape.layers,
                "hidden_size": shape.hidden_size,
                "heads": shape.heads,
                "kv_heads": shape.kv_heads,
                "head_dim": shape.head_dim,
                "max_context_tokens": shape.max_context_tokens,
            }
        )
    write_rows(output, rows, spare=("hidden_size", "head_dim"))


@with_output
def show_model(
    output: Output,
    name: Annotated[
        str,
        typer.Argument(
            help="Preset, config.json or folder.", metavar="MODEL", autocompletion=complete_models
        ),
    ],
    kv_heads: KvHeads = None,
    assume: Assume = None,
) -> None:
    """Show a model's shape, parameters and KV bytes per token."""
    from simulator.counts.memory import kv_bytes_per_token
    from simulator.inputs.model import count_parameters
    from simulator.inputs.presets import load_model
    from simulator.inputs.workload import Workload

    shape = load_model(name, kv_heads=kv_heads, assume=assume)
    parameters = count_parameters(shape)
    facts = {
        **shape.model_dump(mode="json"),
        "family": shape.family,
        "parameters": parameters.total,
        "active_parameters": parameters.active,
        "embedding_parameters": parameters.embedding,
        "head_parameters": parameters.head,
        "attention_parameters": parameters.attention,
        "mlp_parameters": parameters.mlp,
        "norm_parameters": parameters.norms,
        "kv_bytes_per_token_bf16": int(kv_bytes_per_token(shape, Workload())),
    }
    write_facts(output, facts)
