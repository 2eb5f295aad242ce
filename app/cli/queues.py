"""`upbeat queues`: from the tables; and its verbs, over the SDK."""

from typing import Annotated, Any

import typer

from app.cli.asking import ask
from app.cli.choices import Subject
from app.cli.client import connected
from app.cli.completion import complete_queues
from app.cli.progress import working
from app.cli.schedules import Json
from app.cli.tables import print_json, span

queues = typer.Typer(help="The queues: what waits, who takes from them; pause, resume, purge.")

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="Its name.", autocompletion=complete_queues)]


@queues.callback(invoke_without_command=True)
def list_queues(context: typer.Context, *, as_json: Json = False) -> None:
    """Show what waits and runs in each queue, and how many workers take from it; needs no service."""
    if context.invoked_subcommand is None:
        from app.cli import inspection

        inspection.inspect(Subject.QUEUES, limit=1, seconds=1.0, as_json=as_json)


@queues.command()
def pause(
    name: Name,
    *,
    note: Annotated[str, typer.Option(help="Why, for whoever wonders.")],
    as_json: Json = False,
) -> None:
    """Let no run of it start until it is resumed."""
    with connected() as client:
        _told(client.queues.pause(name, note=note), as_json=as_json)


@queues.command()
def resume(name: Name, *, as_json: Json = False) -> None:
    """Let the runs of a paused one start."""
    with connected() as client:
        _told(client.queues.resume(name), as_json=as_json)


@queues.command()
def purge(
    name: Name,
    *,
    confirm: Annotated[
        str | None,
        typer.Option(help="The queue's name once more; it is asked for without.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and do nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Cancel the runs that wait in it. `upbeat purge` does it without the service."""
    if confirm is None:
        confirm = "" if dry_run else ask(f"Type {name} to purge", instead="--confirm")
    body: dict[str, Any] = {"confirm": confirm, "dry_run": dry_run}
    cancelled = 0
    with connected() as client, working("Cancelling", quiet=as_json) as tell:
        done = client.queues.purge(name, **body)
        cancelled += done.cancelled
        while done.more and not dry_run and done.cancelled:
            tell(cancelled, None, "")
            done = client.queues.purge(name, **body)
            cancelled += done.cancelled
    if as_json:
        print_json(done.model_dump(by_alias=True) | {"cancelled": cancelled})
    elif dry_run:
        print(f"{done.matched}{' or more' if done.more else ''} runs would be cancelled.")
    else:
        print(f"{cancelled} runs were cancelled.")


def _told(queue: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(queue.model_dump(by_alias=True))
    elif queue.paused:
        print(f"{queue.name} is paused ({queue.pause_note}). Waiting: {queue.depth}")
    else:
        oldest = "" if queue.oldest_age is None else f", the oldest for {span(queue.oldest_age)}"
        print(f"{queue.name} is open. Waiting: {queue.depth}{oldest}")
