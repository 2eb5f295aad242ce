"""Every verb of the command, as `--help` knows it."""

from collections.abc import Iterator
from typing import Any

import typer.main

from app.cli.commands import app
from docs.generate.markdown import joined, table


def page() -> str:
    """The verbs in the order of their names."""
    root: Any = typer.main.get_command(app)
    return joined(["# The command", root.help, root.epilog, *_verbs(root, "upbeat")])


def verbs() -> set[str]:
    """Their names, such as `upbeat schedules list`."""
    return {part[4:-1] for part in _verbs(typer.main.get_command(app), "upbeat") if part.startswith("## `")}


def _verbs(group: Any, path: str) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        if command.hidden:
            continue
        whole = f"{path} {name}"
        if hasattr(command, "commands") and command.commands:
            yield from _verbs(command, whole)
        else:
            yield from _verb(command, whole)


def _verb(command: Any, whole: str) -> Iterator[str]:
    with command.make_context(whole, [], resilient_parsing=True) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"## `{whole}`"
        yield f"`{whole} {usage}`"
        yield command.help or ""
        rows = [_parameter(each) for each in command.params if each.name != "help"]
        yield table(["", "", "default"], rows)


def _parameter(each: Any) -> list[str]:
    names = ", ".join(f"`{name}`" for name in (*each.opts, *each.secondary_opts))
    if each.param_type_name == "argument":
        names = f"`{each.metavar or each.name.upper()}`"
    plain = each.default is None or each.default is False or callable(each.default) or each.required
    default = getattr(each.default, "value", each.default)
    return [names, getattr(each, "help", None) or "", "" if plain else f"`{default}`"]
