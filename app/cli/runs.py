"""`upbeat tasks|runs`, over the SDK."""

import sys
from itertools import islice
from typing import Annotated, Any

import typer

from app.cli.arguments import given, json_of
from app.cli.client import LIMIT, PAGE, connected
from app.cli.completion import complete_queues, complete_runs, complete_schedules, complete_tasks
from app.cli.progress import Tell, counted, working
from app.cli.schedules import Json
from app.cli.tables import compact, print_json, show, show_fields
from app.scheduling.states import RunState

tasks = typer.Typer(help="The tasks that there are, and runs of them.", no_args_is_help=True)
runs = typer.Typer(help="Runs: what was executed, is executed, or waits.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(metavar="RUN", help="Its id.", autocompletion=complete_runs)]
TaskName = Annotated[
    str, typer.Argument(metavar="TASK", help="Its registered name.", autocompletion=complete_tasks)
]
TaskOption = Annotated[
    str | None, typer.Option(help="A task's registered name.", autocompletion=complete_tasks)
]
QueueOption = Annotated[str | None, typer.Option(help="A queue.", autocompletion=complete_queues)]
ScheduleOption = Annotated[
    str | None, typer.Option(help="A schedule's id or name.", autocompletion=complete_schedules)
]
Limit = Annotated[int, typer.Option(min=1, help="Items at most.")]
All = Annotated[bool, typer.Option("--all", help="All of them, however many: --limit does not count.")]
Args = Annotated[str | None, typer.Option(help="Positional arguments, a JSON list.")]
Kwargs = Annotated[str | None, typer.Option(help="Named arguments, a JSON object.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for its end. Exit status 4: it did not succeed.")]
Timeout = Annotated[float | None, typer.Option(min=0.1, help="Seconds to wait; the run goes on after them.")]
NOT_SUCCEEDED = 4
_RUN = {"id": "run", "task": "task", "state": "state", "reason": "reason", "queue": "queue", "due_at": "due"}


def first(items: Any, limit: int | None, *, quiet: bool = False) -> list[dict[str, Any]]:
    """The first items of a list, walking its pages; all of them without a limit, counted on a terminal."""
    return [each.model_dump(by_alias=True) for each in counted(islice(items, limit), "Reading", quiet=quiet)]


def details(item: Any, *, as_json: bool) -> None:
    """One object, with all of its fields."""
    (print_json if as_json else show_fields)(item.model_dump(by_alias=True))


def told(run: Any, *, wait: bool, timeout: float | None, as_json: bool) -> None:
    """A run that was made: as it is, or, with ``wait``, as it ended."""
    ended = _waited(run, timeout, quiet=as_json) if wait else run
    if as_json:
        print_json(ended.model_dump(by_alias=True))
    else:
        print(f"{ended.id} is {ended.state}{f' ({ended.reason})' if ended.reason else ''}{_came(ended)}")
    if wait and ended.state != "succeeded":
        raise typer.Exit(NOT_SUCCEEDED)


def _waited(run: Any, timeout: float | None, *, quiet: bool) -> Any:
    """The run as it ended; meanwhile a terminal shows its state, and the progress that its body tells."""
    try:
        with working(str(run.id), quiet=quiet) as tell:
            return run.wait(timeout, watch=lambda seen: _tell(tell, seen))
    except KeyboardInterrupt:
        print(f"The run goes on: `upbeat runs show {run.id}`.", file=sys.stderr)
        raise


def _tell(tell: Tell, run: Any) -> None:
    told = run.progress or {}
    attempt = f", attempt {run.attempt}" if run.attempt > 1 else ""
    tell(told.get("done") or 0, told.get("total"), f"{run.state}{attempt} {told.get('message') or ''}")


def _came(run: Any) -> str:
    """What came of a run, in so far as it is over."""
    if run.state == "succeeded":
        return f": {compact(run.returned)}"
    message = (run.error or {}).get("message")
    return f": {message}" if message else ""


@tasks.command("list")
def list_tasks(*, limit: Limit = LIMIT, as_json: Json = False) -> None:
    """List the tasks."""
    columns = {"name": "task", "queue": "queue", "schedulable": "schedulable", "description": "description"}
    with connected() as client:
        show(
            first(client.tasks.list(), limit, quiet=as_json),
            columns,
            as_json=as_json,
            empty="There are no tasks.",
        )


@tasks.command("show")
def show_task(name: TaskName, *, as_json: Json = False) -> None:
    """Show one task, with the schema of its parameters."""
    with connected() as client:
        details(client.tasks.get(name), as_json=as_json)


@tasks.command("run")
def run_task(
    name: TaskName,
    *,
    args: Args = None,
    kwargs: Kwargs = None,
    queue: Annotated[
        str | None, typer.Option(help="Another queue than the task's own.", autocompletion=complete_queues)
    ] = None,
    countdown: Annotated[float | None, typer.Option(min=0, help="Seconds until it may start.")] = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Make a run of a task."""
    body = given(
        args=json_of(list, args, "--args"),
        kwargs=json_of(dict, kwargs, "--kwargs"),
        options=None if queue is None else {"queue": queue},
        countdown=countdown,
    )
    with connected() as client:
        told(client.tasks.run(name, **body), wait=wait, timeout=timeout, as_json=as_json)


@runs.command("list")
def list_runs(
    *,
    state: Annotated[RunState | None, typer.Option(help="Those in this state.")] = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    schedule: ScheduleOption = None,
    limit: Limit = 20,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """List runs, the newest first."""
    from app.cli.client import schedule_id

    with connected() as client:
        which: dict[str, Any] = given(
            state=state,
            task=task,
            queue=queue,
            schedule_id=None if schedule is None else schedule_id(client, schedule),
        )
        found = client.runs.list(limit=PAGE if everything else min(limit, PAGE), **which)
        show(
            first(found, None if everything else limit, quiet=as_json),
            _RUN,
            as_json=as_json,
            empty="There are no such runs.",
        )


@runs.command("show")
def show_run(run: Run, *, as_json: Json = False) -> None:
    """Show one run."""
    with connected() as client:
        details(client.runs.get(run), as_json=as_json)


@runs.command("logs")
def show_logs(
    run: Run,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run has ended.")] = False,
) -> None:
    """Show what a run wrote."""
    with connected() as client:
        for line in client.runs.get(run).logs(follow=follow):
            print(
                f"{line.logged_at.isoformat(timespec='milliseconds')} {line.level:<8} {line.message}",
                flush=True,
            )


@runs.command("cancel")
def cancel_run(
    run: Run,
    *,
    force: Annotated[bool, typer.Option("--force", help="End a running one, if it does not stop.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why, for whoever wonders.")] = None,
    as_json: Json = False,
) -> None:
    """Cancel a run: a queued one never starts, a running one is asked to stop."""
    with connected() as client:
        told(
            client.runs.get(run).cancel(force=force, reason=reason), wait=False, timeout=None, as_json=as_json
        )


@runs.command("replay")
def replay_run(
    run: Run,
    *,
    args: Args = None,
    kwargs: Kwargs = None,
    wait: Wait = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Make a new run like one that has ended, with the same or other arguments."""
    with connected() as client:
        made = client.runs.get(run).replay(
            args=json_of(list, args, "--args"), kwargs=json_of(dict, kwargs, "--kwargs")
        )
        told(made, wait=wait, timeout=timeout, as_json=as_json)


@runs.command("why")
def explain_run(run: Run, *, as_json: Json = False) -> None:
    """Say what a run waits for, or how it ended."""
    with connected() as client:
        found = client.runs.why(run)
    if as_json:
        print_json(found.model_dump(by_alias=True))
    else:
        print(f"{found.state}{f' ({found.reason})' if found.reason else ''}: {found.explanation}")
