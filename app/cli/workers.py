"""`upbeat workers`, over the SDK."""

from typing import Annotated, Any

import typer

from app.cli.client import LIMIT, connected, worker_id
from app.cli.completion import complete_workers
from app.cli.runs import Limit, first
from app.cli.schedules import Json
from app.cli.tables import print_json, show

workers = typer.Typer(help="The workers: list, drain, resize.")

Which = Annotated[
    str, typer.Argument(metavar="WORKER", help="Its id, or its name.", autocompletion=complete_workers)
]


@workers.callback(invoke_without_command=True)
def list_workers(
    context: typer.Context,
    *,
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended, for a week.")] = False,
    limit: Limit = LIMIT,
    as_json: Json = False,
) -> None:
    """List the workers that hold a lease."""
    if context.invoked_subcommand is not None:
        return
    columns = {
        "name": "worker", "state": "state", "pool": "pool", "concurrency": "slots", "active_runs": "running",
        "queues": "queues", "started_at": "since",
    }  # fmt: skip
    with connected() as client:
        found = client.workers.list(alive=None if every else True)
        rows = first(found, limit, quiet=as_json)
    if not as_json:
        rows = [{**row, "queues": ", ".join(row["queues"])} for row in rows]
    show(rows, columns, as_json=as_json, empty="No worker is alive.")


@workers.command()
def drain(which: Which, *, as_json: Json = False) -> None:
    """Let it take nothing any more, and end when its runs have ended."""
    with connected() as client:
        _told(client.workers.drain(worker_id(client, which)), as_json=as_json)


@workers.command()
def resize(
    which: Which,
    change: Annotated[int, typer.Option("--by", help="More slots; fewer when negative: --by=-2.")],
    *,
    as_json: Json = False,
) -> None:
    """Give it more slots, or fewer."""
    with connected() as client:
        _told(client.workers.resize(worker_id(client, which), change=change), as_json=as_json)


@workers.command()
def activity(which: Which, *, as_json: Json = False) -> None:
    """Show what it does now."""
    columns = {"id": "run", "task": "task", "queue": "queue", "attempt": "attempt", "started_at": "since"}
    with connected() as client:
        found = client.workers.activity(worker_id(client, which))
    if as_json:
        print_json(found.model_dump(by_alias=True))
        return
    show(
        [each.model_dump(by_alias=True) for each in found.active],
        columns,
        as_json=False,
        empty="It executes nothing.",
    )
    print(found.silence or "It answers.")


def _told(worker: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(worker.model_dump(by_alias=True))
        return
    asked = "; it is asked to drain" if worker.drain_requested_at else ""
    slots = worker.concurrency if worker.concurrency_wanted is None else worker.concurrency_wanted
    print(f"{worker.name} is {worker.state}{asked}. Slots: {slots}")
