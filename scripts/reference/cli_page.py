"""The page `cli`, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import typer

from pgfleet.main import app
from pgfleet.options import Noun
from reference.markdown import block, code, page, prose, table

_INTRODUCTION = """
Every command of `pgfleet`, by noun. `pgfleet NOUN --help` and `pgfleet NOUN VERB --help` show the
same. Data goes to stdout and talk to stderr; on a terminal lists are tables, in a pipe they are
lines with tabs. Exit status: 0 done, 1 refused or failed, 2 wrong usage.
"""
_TYPER_OWN = ("install_completion", "show_completion")
Command = Any


def cli() -> str:
    """Write the page."""
    root: Command = typer.main.get_command(app)
    context = typer.Context(root, info_name="pgfleet")
    nouns = [
        (name, root.get_command(context, name)) for name in sorted(root.list_commands(context))
    ]
    shared = _shared()
    parts = [
        "## Options of every command",
        "A few nouns (`agent`, `demo`) that have no database take `--json` only.",
        _options(parameter for parameter in shared.values()),
        "Before the noun:",
        # Typer's own options, such as those for completion, are in its help.
        _options(p for p in root.params if p.name in ("database_url", "version")),
    ]
    for name, noun in nouns:
        parts.extend(_noun(name, noun, set(shared)))
    return page("The command line", _INTRODUCTION, parts)


def _shared() -> dict[str, Command]:
    """Give the options that every command of a noun takes, by asking for those of an empty one."""
    noun = Noun("")

    @noun.command("nothing")
    def nothing() -> None:
        """Do nothing."""

    command: Command = typer.main.get_command(noun)
    inner = command.commands["nothing"] if hasattr(command, "commands") else command
    return {parameter.name: parameter for parameter in inner.params if parameter.name != "help"}


def _noun(name: str, noun: Command, shared: set[str]) -> Iterator[str]:
    yield f"## {name}"
    yield prose(noun.help or "")
    if own := [p for p in noun.params if p.name not in ("help", *_TYPER_OWN)]:
        yield "Without a verb:"
        yield _options(own)
    for path, verb in _verbs(name, noun):
        yield f"### {path}"
        text, example = _help(verb)
        yield prose(text)
        arguments = [p for p in verb.params if p.param_type_name == "argument"]
        usage = " ".join(["pgfleet", path, *map(_usage, arguments), "[OPTIONS]"])
        yield block("text", "\n".join(filter(None, (usage, example))))
        if arguments:
            yield table(
                ("argument", "meaning"),
                ((code(_metavar(p)), prose(p.help or "")) for p in arguments),
            )
        own = [p for p in verb.params if p not in arguments and p.name not in {*shared, "help"}]
        if own:
            yield _options(own)


def _verbs(path: str, command: Command) -> Iterator[tuple[str, Command]]:
    if not hasattr(command, "list_commands"):
        yield path, command
        return
    context = typer.Context(command, info_name=path)
    for name in sorted(command.list_commands(context)):
        yield from _verbs(f"{path} {name}", command.get_command(context, name))


def _help(command: Command) -> tuple[str, str]:
    """Split a help text into what it says and its example."""
    text = inspect.cleandoc(command.help or "").replace("\b\n", "\n")
    said, _, example = text.partition("Example:")
    return said.strip(), example.strip()


def _options(parameters: Iterable[Command]) -> str:
    return table(
        ("option", "meaning"),
        ((_names(p), " ".join(filter(None, (prose(p.help or ""), _extra(p))))) for p in parameters),
    )


def _names(parameter: Command) -> str:
    names = ", ".join(code(name) for name in parameter.opts)
    return names if parameter.is_flag else f"{names} {code(_metavar(parameter))}"


def _metavar(parameter: Command) -> str:
    # Not what Typer would show: that differs from version to version.
    return str(parameter.metavar or parameter.name.upper())


def _usage(argument: Command) -> str:
    shown = _metavar(argument) + ("..." if argument.nargs == -1 else "")
    return shown if argument.required else f"[{shown}]"


def _extra(parameter: Command) -> str:
    found: list[str] = []
    default = parameter.default
    if default not in (None, False, True, "", [], ()) and not callable(default):
        found.append(f"Default: {code(str(default))}.")
    if parameter.multiple and "epeatable" not in (parameter.help or ""):
        found.append("Repeatable.")
    if parameter.envvar:
        found.append(f"Or {code(str(parameter.envvar))}.")
    return " ".join(found)
