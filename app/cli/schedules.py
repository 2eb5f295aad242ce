"""`upbeat schedules`: what is declared against what is stored, and what is stored against the tasks."""

from enum import StrEnum
from typing import Annotated

import typer

schedules = typer.Typer(
    help="Schedules: those of people over the API, the declared ones from code and file.",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Pruning = Annotated[bool, typer.Option("--prune", help="Also delete schedules whose declaration is gone.")]


class How(StrEnum):
    """What pruning does with a schedule."""

    DELETE = "delete"
    DISABLE = "disable"


@schedules.command()
def plan(*, prune: Pruning = False, as_json: Json = False) -> None:
    """Say what `apply` would do, and do nothing. Exit status 2: something would change."""
    from app.cli import deployment

    raise typer.Exit(deployment.plan(prune=prune, as_json=as_json))


@schedules.command()
def apply(*, prune: Pruning = False, as_json: Json = False) -> None:
    """Bring the stored schedules to what is declared in code and in UPBEAT_SCHEDULES_FILE: all, or nothing."""
    from app.cli import deployment

    deployment.apply(prune="delete" if prune else None, as_json=as_json)


@schedules.command("prune")
def prune_(
    *,
    how: Annotated[How, typer.Option(help="delete, or disable.")] = How.DELETE,
    as_json: Json = False,
) -> None:
    """As `apply --prune`; with `--how disable` what lost its declaration stays, and fires no more."""
    from app.cli import deployment

    deployment.apply(prune=how, as_json=as_json)


@schedules.command()
def check(*, as_json: Json = False) -> None:
    """Find schedules that do not fit their tasks any more; active ones become invalid, with the reason.

    Exit status 2: some do not fit.
    """
    from app.cli import deployment

    raise typer.Exit(deployment.check(as_json=as_json))
