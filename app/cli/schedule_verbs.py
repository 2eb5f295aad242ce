"""`upbeat schedules list|show|create|edit|pause|resume|run|preview|simulate|backfill|history|why`, over the SDK."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from app.cli.arguments import given, instant, json_of, timing
from app.cli.client import LIMIT, PAGE, connected, schedule_id
from app.cli.completion import complete_schedules, complete_tasks
from app.cli.progress import working
from app.cli.runs import All, Args, Kwargs, Limit, TaskName, Timeout, Wait, details, first, told
from app.cli.schedules import Json, schedules
from app.cli.tables import cell, print_json, show
from app.scheduling.policies import CatchUp
from app.scheduling.states import Reprocess, ScheduleState

__all__ = ["schedules"]

Which = Annotated[
    str, typer.Argument(metavar="SCHEDULE", help="Its id, or its name.", autocompletion=complete_schedules)
]
Cron = Annotated[str | None, typer.Option(help="A crontab expression: '0 3 * * *'.")]
Every = Annotated[str | None, typer.Option(help="An interval: 90s, 5m, 2h, 1d, 1w.")]
At = Annotated[str | None, typer.Option(help="Once, at this time: 2027-03-01T09:00:00+01:00.")]
Zone = Annotated[str | None, typer.Option(help="An IANA zone; UTC without.")]
Extra = Annotated[str | None, typer.Option(help="task_extra_config, a JSON object: queue, limits, policies.")]
Description = Annotated[str | None, typer.Option(help="For people.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
_SCHEDULE = {"id": "id", "task_name": "schedule", "task": "task", "state": "state", "next_run_at": "next"}


@schedules.command("list")
def list_schedules(
    *,
    search: Annotated[str | None, typer.Option(help="Part of a name or a task.")] = None,
    state: Annotated[ScheduleState | None, typer.Option(help="Those in this state.")] = None,
    limit: Limit = LIMIT,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """List schedules, the oldest first."""
    which: dict[str, Any] = given(search=search, state=state)
    with connected() as client:
        found = first(
            client.schedules.list(limit=PAGE if everything else min(limit, PAGE), **which),
            None if everything else limit,
            quiet=as_json,
        )
        show(found, _SCHEDULE, as_json=as_json, empty="There are no such schedules.")


@schedules.command("show")
def show_schedule(which: Which, *, as_json: Json = False) -> None:
    """Show one schedule."""
    with connected() as client:
        details(client.schedules.get(schedule_id(client, which)), as_json=as_json)


@schedules.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    task: TaskName,
    *,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    timezone: Zone = None,
    args: Args = None,
    kwargs: Kwargs = None,
    extra: Extra = None,
    description: Description = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Not active yet.")] = False,
    as_json: Json = False,
) -> None:
    """Make a schedule of a task: give one of --cron, --every and --at."""
    when = timing(cron, every, at, timezone)
    if when is None:
        raise typer.BadParameter("say when it runs", param_hint="--cron, --every or --at")
    body = given(
        task_name=name,
        task_path=task,
        schedule=when,
        task_args=json_of(list, args, "--args"),
        task_kwargs=json_of(dict, kwargs, "--kwargs"),
        task_extra_config=json_of(dict, extra, "--extra"),
        description=description,
        task_enabled=False if disabled else None,
    )
    with connected() as client:
        _told(client.schedules.create(**body), as_json=as_json)


@schedules.command()
def edit(
    which: Which,
    *,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    task: Annotated[str | None, typer.Option(help="Another task.", autocompletion=complete_tasks)] = None,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    timezone: Zone = None,
    args: Args = None,
    kwargs: Kwargs = None,
    extra: Extra = None,
    description: Description = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Fire, or do not.")] = None,
    as_json: Json = False,
) -> None:
    """Change what is given; the rest stays."""
    body = given(
        task_name=name,
        task_path=task,
        schedule=timing(cron, every, at, timezone),
        task_args=json_of(list, args, "--args"),
        task_kwargs=json_of(dict, kwargs, "--kwargs"),
        task_extra_config=json_of(dict, extra, "--extra"),
        description=description,
        task_enabled=enabled,
    )
    if not body:
        raise typer.BadParameter("say what is to be changed; --help lists it", param_hint="one option")
    with connected() as client:
        _told(client.schedules.update(schedule_id(client, which), **body), as_json=as_json)


@schedules.command()
def pause(
    which: Which,
    *,
    note: Annotated[str, typer.Option(help="Why, for whoever wonders.")],
    as_json: Json = False,
) -> None:
    """Let it fire no more until it is resumed."""
    with connected() as client:
        _told(client.schedules.pause(schedule_id(client, which), note=note), as_json=as_json)


@schedules.command()
def resume(
    which: Which,
    *,
    catch_up: Annotated[CatchUp, typer.Option(help="Which of the ticks that passed are run.")] = CatchUp.NONE,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let a paused one go on."""
    body: dict[str, Any] = {"catch_up": catch_up, "dry_run": dry_run}
    with connected() as client:
        done = client.schedules.resume(schedule_id(client, which), **body)
    if as_json:
        print_json(done.model_dump(by_alias=True))
    else:
        would = "would be" if dry_run else "are"
        print(
            f"{done.ticks_passed if done.ticks_passed is not None else 'Many'} ticks passed;"
            f" {len(done.ticks)} {would} caught up with. Next: {cell(done.next_run_at)}"
        )


@schedules.command("run")
def run_now(which: Which, *, wait: Wait = False, timeout: Timeout = None, as_json: Json = False) -> None:
    """Make a run of it now."""
    with connected() as client:
        told(client.schedules.run(schedule_id(client, which)), wait=wait, timeout=timeout, as_json=as_json)


@schedules.command()
def preview(
    which: Which,
    *,
    number: Annotated[int, typer.Option("-n", min=1, help="How many ticks.")] = 10,
    as_json: Json = False,
) -> None:
    """Show its next ticks, with what changes of clocks and calendars do to them."""
    columns = {"local_time": "local time", "due_at": "due", "dst": "clocks", "excluded_by": "calendar"}
    with connected() as client:
        found = client.schedules.preview(schedule_id(client, which), n=number)
    rows = [each.model_dump(by_alias=True) for each in found.items]
    if not as_json:
        print(found.description)
        # In the schedule's zone; other instants are shown in this host's.
        rows = [
            {**row, "local_time": row["local_time"].isoformat(sep=" ", timespec="seconds")} for row in rows
        ]
    show(rows, columns, as_json=as_json, empty="No tick is left.")


@schedules.command()
def simulate(
    which: Which,
    *,
    hours: Annotated[float, typer.Option(min=0.01, help="How long from now.")] = 24,
    duration: Annotated[float, typer.Option(min=0, help="Seconds that each run would take.")] = 1,
    as_json: Json = False,
) -> None:
    """Say which ticks would run, wait or be skipped under its policies."""
    end = datetime.now(UTC) + timedelta(hours=hours)
    columns = {"scheduled_for": "tick", "due_at": "due", "state": "state", "reason": "reason"}
    with connected() as client:
        found = client.schedules.simulate(schedule_id(client, which), end=end, duration=duration)
    show(
        [each.model_dump(by_alias=True) for each in found.items],
        columns,
        as_json=as_json,
        empty="No tick lies in it.",
    )
    if not as_json:
        print(", ".join(f"{count} {state}" for state, count in found.counts.items()))


@schedules.command()
def backfill(
    which: Which,
    *,
    start: Annotated[str, typer.Option(help="Ticks after this time, …")],
    end: Annotated[str, typer.Option(help="… up to this one.")],
    reprocess: Annotated[
        Reprocess, typer.Option(help="Which ticks that have a run get another: failed, or completed too.")
    ] = "none",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make runs for ticks of the past."""
    body: dict[str, Any] = {
        "start": instant(start, "--start"),
        "end": instant(end, "--end"),
        "reprocess": reprocess,
        "dry_run": dry_run,
    }
    with connected() as client, working("Making runs", quiet=as_json):
        done = client.schedules.backfill(schedule_id(client, which), **body)
    if as_json:
        print_json(done.model_dump(by_alias=True))
    else:
        verb = "would get" if dry_run else "get"
        left_out = ", ".join(f"{count} {why}" for why, count in done.left_out.items())
        print(f"{done.runs} of {done.ticks} ticks {verb} a run.{left_out and f' Left out: {left_out}.'}")


@schedules.command()
def history(which: Which, *, limit: Limit = 20, as_json: Json = False) -> None:
    """List its versions, the newest first: who changed what, and when."""
    columns = {
        "version": "version",
        "action": "action",
        "author": "author",
        "reason": "reason",
        "changed_at": "at",
    }
    with connected() as client:
        found = client.schedules.list_versions(schedule_id(client, which))
        show(first(found, limit, quiet=as_json), columns, as_json=as_json, empty="It has no versions.")


@schedules.command()
def diff(
    which: Which,
    version: Annotated[int, typer.Argument(min=1, help="The version's number.")],
    *,
    against: Annotated[
        int | None, typer.Option(min=1, help="Another version; the one before without.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a version changed."""
    columns = {"field": "field", "before": "before", "after": "after"}
    with connected() as client:
        found = client.schedules.diff(schedule_id(client, which), version, against=against)
    rows = [each.model_dump(by_alias=True) for each in found.changes]
    show(rows, columns, as_json=as_json, empty="Nothing differs.")


@schedules.command()
def restore(
    which: Which,
    version: Annotated[int, typer.Argument(min=1, help="The version's number.")],
    *,
    reason: Annotated[str | None, typer.Option(help="Why, kept with the new version.")] = None,
    as_json: Json = False,
) -> None:
    """Bring an earlier version back, as a new one; also of a deleted schedule, which is named by its id."""
    with connected() as client:
        made = client.schedules.restore(schedule_id(client, which), version, **given(reason=reason))
        _told(made, as_json=as_json)


@schedules.command()
def why(
    which: Which, *, at: Annotated[str, typer.Option(help="The instant.")], as_json: Json = False
) -> None:
    """Say what became of an instant, and why."""
    with connected() as client:
        found = client.schedules.why(schedule_id(client, which), at=instant(at, "--at"))
    if as_json:
        print_json(found.model_dump(by_alias=True))
    else:
        print(f"{found.verdict}{f' ({found.reason})' if found.reason else ''}: {found.explanation}")


def _told(schedule: Any, *, as_json: bool) -> None:
    if as_json:
        print_json(schedule.model_dump(by_alias=True))
    else:
        print(f"{schedule.id} “{schedule.task_name}” is {schedule.state}. Next: {cell(schedule.next_run_at)}")
