"""Write docs/reference.md, the reference of every command, from the commands' own declarations.

    python docs/reference.py

Run it after a change to a command, an option or a help text: `tests/test_docs.py` fails while the page is stale.
"""

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo

from gcnn_cli.cli import app
from gcnn_cli.cli.app import EXIT_CODES

PAGE = Path(__file__).with_name("reference.md")
INTRODUCTION = """\
# Command reference

This page is generated from the command line by `python docs/reference.py`.
`gcnn COMMAND --help` prints the same.
An option with a variable takes its value from that environment variable unless the command line sets it.
"""
_KINDS = {Path: "PATH", str: "TEXT", int: "N", float: "X"}


def reference() -> str:
    """Return the page: the options of `gcnn` itself, then one section for each command."""
    root = app.registered_callback
    assert root is not None
    assert root.callback is not None
    sections = [INTRODUCTION + "\n" + EXIT_CODES, _section("gcnn", root.callback)]
    for command in app.registered_commands:
        assert command.callback is not None
        sections.append(_section(f"gcnn {command.name or command.callback.__name__}", command.callback))
    return "\n\n".join(sections) + "\n"


def _section(name: str, command: Callable[..., Any]) -> str:
    """Return the heading, the description and the tables of one command."""
    hints = get_type_hints(command, include_extras=True)
    arguments, options = [], []
    for parameter in inspect.signature(command).parameters.values():
        if hints[parameter.name] is typer.Context:
            continue
        kind, info = get_args(hints[parameter.name])
        if isinstance(info, ArgumentInfo):
            arguments.append(f"| `{_argument(parameter, info)}` | {_meaning(parameter, info)} |")
        else:
            options.append(f"| {_option(parameter.name, kind, info)} | {_meaning(parameter, info)} |")
    parts = [f"## {name}"]
    if command.__doc__:
        parts += [" ".join(_escaped(paragraph).split()) for paragraph in command.__doc__.split("\n\n")]
    if arguments:
        parts.append("\n".join(["| argument | meaning |", "|---|---|", *arguments]))
    parts.append("\n".join(["| option | meaning |", "|---|---|", *options]))
    return "\n\n".join(parts)


def _argument(parameter: inspect.Parameter, info: Any) -> str:
    shown = info.metavar or parameter.name.upper()
    return shown if parameter.default is parameter.empty else f"[{shown}]"


def _option(name: str, kind: Any, info: Any) -> str:
    """Return the option's names and what it takes, as `--out`, `-o` PATH."""
    declared = (info.default, *(info.param_decls or ()))  # inside Annotated, Typer keeps the first name as the default
    names = [n for n in declared if isinstance(n, str)] or ["--" + name.replace("_", "-")]
    shown = ", ".join(f"`{n}`" for n in names)
    return shown if kind is bool else f"{shown} {info.metavar or _takes(kind)}"


def _takes(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        (kind,) = (part for part in get_args(kind) if part is not types.NoneType)
    if get_origin(kind) is list:
        return _takes(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    return _KINDS[kind]


def _meaning(parameter: inspect.Parameter, info: Any) -> str:
    """Return the help text, the default and the environment variable as the cell of a table."""
    parts = [_escaped(" ".join((info.help or "").split())).replace("|", r"\|")]
    if parameter.default is parameter.empty:
        parts.append("Required.")
    elif parameter.default is True:
        parts.append("Default: on.")
    elif parameter.default not in (None, "") and not isinstance(parameter.default, bool):
        parts.append(f"Default: `{parameter.default}`.")
    if info.envvar:
        parts.append(f"Variable: `{info.envvar}`.")
    return " ".join(parts)


def _escaped(text: str) -> str:
    """Escape what Markdown would take for its own in a plain sentence."""
    return "".join(f"\\{c}" if c in "<*_" else c for c in text)


if __name__ == "__main__":
    PAGE.write_text(reference(), "utf-8")
