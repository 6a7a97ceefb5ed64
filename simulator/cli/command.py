"""How commands read their words and lay out their help: spellings, hints, groups and examples."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, cast, get_args

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from simulator.cli.output import say
from simulator.errors import OutputError

# The modules of commands, in each of which they are functions of this name after an underscore.
# Only the requested command is loaded, because the options of all others would take longer than the
# answer.
MODULES: Mapping[str, Sequence[str]] = {
    "answers": ("compare", "estimate", "generate", "tree", "plan", "serve"),
    "tradeoff": ("quality", "tradeoff", "scaling"),
    "sweep": ("sweep",),
    "pages": ("plot", "report", "explore"),
    "catalogues": ("models", "gpus", "scenarios"),
    "trace": ("trace",),
    "measure": ("measure",),
    "evidence": ("calibrate", "validate"),
}
COMMANDS = {name: module for module, names in MODULES.items() for name in names}
# What commands and options are called, and what the help and the hints say.
_WORDS: Any = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
# The commands by what they are for, in the order of the help, each with its summary.
GROUPS: Mapping[str, Mapping[str, str]] = _WORDS["commands"]
SUMMARIES = {name: said for group in GROUPS.values() for name, said in group.items()}
# How options are spelt that have other names than their values, or several.
SPELT: Mapping[str, str] = _WORDS["spelt"]
# What the help says, by the names of options and arguments, where it does not fit beside them.
HELP: Mapping[str, str] = _WORDS["help"]
# Two questions that each command answers.
EXAMPLES: Mapping[str, Sequence[str]] = _WORDS["examples"]
# What the users of engines type, and our words for it.
SPELLINGS: Mapping[str, Sequence[str]] = {
    word: ours.split() for ours, words in _WORDS["spellings"].items() for word in words
}
# What they type that has no words of ours, and what to write instead.
MEANT: Mapping[str, str] = {word: said for said, words in _WORDS["meant"].items() for word in words}

# The groups of options that every command may have.
QUESTION_PANEL, OUTPUT_PANEL = "The question", "The output"
# The options that most questions have, which their help shows first.
FIRST = ("model", "gpu", "samples", "context_tokens", "prompts")
# Types of options whose words are their values.
_TEXTS = (str, str | None, list[str] | None)
# Options that name a file to write.
OUTPUTS = ("output", "figure")


def spelt(args: Sequence[str], known: Iterable[str]) -> list[str]:
    """Return a command line with the words of engines replaced by ours, each said on stderr.

    Parameters
    ----------
    args
        The words after the command.
    known
        The command's own options, which mean what they say.
    """
    own, words = set(known), list[str]()
    for index, word in enumerate(args):
        if word == "--":
            return [*words, *args[index:]]
        name, equals, value = word.partition("=")
        dashed = name.replace("_", "-")
        ours = SPELLINGS.get(dashed, (dashed,) if name.startswith("--") else ())
        if name in own or not ours or ours[0] not in own:
            words.append(word)
            continue
        say(f"note: {name} is read as {' '.join(ours)}")
        words += [*ours, value] if equals else ours
    return words


def _reader(annotation: Any) -> Callable[[str], Any] | None:
    """Return what reads the words of an option or argument, None where Typer does."""
    kind, described = get_args(annotation)
    parser: Callable[[str], Any] | None = described.parser
    return parser or (str if kind in _TEXTS else None)


def _value(item: Any, read: Callable[[str], Any] | None, context: Any, typed: Any) -> Any:
    """Return the value of an option or argument, or of each where there are several."""
    several = item.multiple or item.nargs == -1
    if typed in (None, ()) and not item.required:
        return () if several else None
    if read is None or item.value_is_missing(typed):
        return type(item).process_value(item, context, typed)
    return [read(word) for word in typed] if several else read(typed)


class _Own:
    """Commands whose options are read by functions of ours, and whose help ends with examples."""

    callback: Any

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options and arguments, to be read without Typer's validators.

        Typer makes a validator for each, and loads pydantic for that, which takes as long as an
        answer.
        """
        written = signature(self.callback).parameters
        params: list[Any] = cast("Any", super()).get_params(ctx)
        for item in params:
            read = _reader(written[item.name].annotation) if item.name in written else None
            item.process_value = partial(_value, item, read)
        return params

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, as they are typed; commands of a group have none of their own."""
        for number, words in enumerate(EXAMPLES.get(ctx.command_path.partition(" ")[2], ())):
            formatter.write("\nExamples:\n" if number == 0 else "")
            formatter.write(f"  {ctx.command_path} {words}\n")


class Command(_Own, TyperCommand):
    """A command that ignores nothing of its line, and whose help is in groups, with examples."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, after checking that none of it would be ignored."""
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        args = spelt(args, (name for item in self.params for name in item.opts))
        self._check(ctx, args)
        rest = super().parse_args(ctx, args)
        _check_outputs(ctx.params)
        return rest

    def _check(self, ctx: Any, args: list[str]) -> None:
        """Refuse a second value of an option that takes one, and words that mean nothing."""
        _, spare, order = self.make_parser(ctx).parse_args(list(args))
        if spare and any(item.name == "model" for item in self.params):
            raise typer.BadParameter(
                f"unexpected {' '.join(spare)!r}; write -g before a GPU, and a name with spaces "
                "in quotes"
            )
        for item, times in Counter(order).items():
            single = isinstance(item, TyperOption) and not (item.multiple or item.is_flag)
            if single and times > 1:
                several = "; 'bifurcate plan -g A,B' tries several" if item.name == "gpu" else ""
                raise typer.BadParameter(
                    f"{item.opts[0]} takes one value and is given {times} times{several}"
                )

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in groups, those of most questions first."""
        asks = sum(item.name in FIRST for item in self.params) == len(FIRST)
        panels: dict[str, list[Any]] = {QUESTION_PANEL: [], "Arguments": []}
        for item in self.get_params(ctx):
            first = asks and item.name in FIRST
            panel = QUESTION_PANEL if first else _panel(item)
            panels.setdefault(panel, []).append(item)
        panels[QUESTION_PANEL].sort(key=lambda item: FIRST.index(item.name))
        panels[OUTPUT_PANEL] = panels.pop(OUTPUT_PANEL, [])  # the last
        for panel, items in panels.items():
            records = [record for item in items if (record := item.get_help_record(ctx))]
            # Typer adds an argument's type of Python, as in MODEL <str>.
            records = [(name.partition(" <")[0], said) for name, said in records]
            if records:
                with formatter.section(panel):
                    formatter.write_dl(records)


class Commands(_Own, TyperGroup):
    """The commands, in groups."""

    def format_commands(self, _: Any, formatter: Any) -> None:
        """Write each command's summary under its group."""
        for title, group in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(list(group.items()))

    def format_epilog(self, _: Any, formatter: Any) -> None:
        """Say where to begin."""
        formatter.write(
            "\nBegin with: bifurcate compare llama-3.1-8b -g h100 -n 16 --context 8K\n"
            "Options of a command: bifurcate help COMMAND\n"
        )


class Catalogue(_Own, TyperGroup):
    """A group that explains how to show an item when its name is given as a command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Find the command, or suggest the one that was probably meant."""
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            if "Did you mean" not in error.message:
                error.message += f" To show one: {ctx.command_path} show {args[0]}"
            raise


def _panel(item: Any) -> str:
    """Return the group of an option or argument in the help."""
    panel = getattr(item, "rich_help_panel", None)
    return "Arguments" if item.param_type_name == "argument" else panel or OUTPUT_PANEL


def hint_of(error: typer.TyperException) -> str:
    """Say what to write instead of an option that is not known, or nothing.

    Typer's class of an unknown option has no public name; it alone has possibilities.
    """
    if not hasattr(error, "possibilities"):
        return ""
    name = str(getattr(error, "option_name", ""))
    if meant := MEANT.get(SPELLINGS.get(name, (name,))[0]):
        return meant
    near = " or ".join(sorted(error.possibilities or ()))
    return f"did you mean {near}?" if near else ""


def _check_outputs(values: Mapping[str, Any]) -> None:
    """Refuse to write over a file that the command reads.

    Raises
    ------
    OutputError
        If an output is one of the inputs.
    """
    # Older versions of Typer make paths of texts only later.
    outputs = [Path(values[name]) for name in OUTPUTS if isinstance(values.get(name), str | Path)]
    outputs = [path for path in outputs if path.is_file()]
    for name, value in values.items() if outputs else ():
        for item in value if isinstance(value, list | tuple) else [value]:
            if name in OUTPUTS or not isinstance(item, str | Path):
                continue
            for path in outputs:
                if any(read.exists() and read.samefile(path) for read in _reads(Path(item), path)):
                    raise OutputError(f"cannot write {path}: it is an input; name another file")


def _reads(given: Path, output: Path) -> Iterable[Path]:
    """Return the files that an input stands for, among them the output if it is one."""
    if not given.is_dir():
        return [given]
    rows = [given / output.name] if output.suffix in (".csv", ".parquet") else []
    return [given / "config.json", *rows]
