"""`upbeat runs act`: many runs at once, over the SDK."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from app.cli.arguments import given, instant
from app.cli.client import connected, schedule_id
from app.cli.progress import Tell, working
from app.cli.runs import QueueOption, ScheduleOption, TaskOption, runs
from app.cli.schedule_verbs import DryRun
from app.cli.schedules import Json
from app.cli.tables import print_json
from app.scheduling.states import RunState

__all__ = ["runs"]

STEP = 200  # runs of one request
MOST = 10_000  # that a request may count
_RUNNING = [RunState.RUNNING.value]


class Act(StrEnum):
    """What is done to each run."""

    CANCEL = "cancel"
    REPLAY = "replay"


@runs.command("act")
def act_on_runs(
    action: Annotated[Act, typer.Argument(help="cancel what waits or runs, or replay what did not succeed.")],
    *,
    state: Annotated[
        list[RunState] | None, typer.Option(help="Those in this state; may be given several times.")
    ] = None,
    task: TaskOption = None,
    queue: QueueOption = None,
    schedule: ScheduleOption = None,
    error: Annotated[str | None, typer.Option(help="The type of its error: ValueError.")] = None,
    since: Annotated[str | None, typer.Option(help="Made at this time or later.")] = None,
    until: Annotated[str | None, typer.Option(help="Made before this time.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why they are cancelled, for whoever wonders.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Cancel or replay all runs that the options find, the oldest first; at least one of them is needed.

    Without --state, `cancel` means queued and running ones, `replay` those that failed, timed out or were lost, and
    were not replayed yet.
    """
    if not any((state, task, queue, schedule, error, since, until)):
        raise typer.BadParameter("say which runs", param_hint="--state, --task or another")
    with connected() as client:
        which: dict[str, Any] = given(
            task=task,
            queue=queue,
            schedule_id=None if schedule is None else schedule_id(client, schedule),
            exception=error,
            since=None if since is None else instant(since, "--since"),
            until=None if until is None else instant(until, "--until"),
            states=[each.value for each in state or ()] or None,
        )
        call = _of(client, action, reason)
        found = call(which, limit=MOST, dry_run=True)
        changed, more = found.changed, found.more
        if not dry_run:
            with working(action, quiet=as_json) as tell:
                changed, more = _walk(call, _parts(action, which), found.matched, tell)
    if as_json:
        print_json({"action": action, "dry_run": dry_run, "matched": found.matched, "changed": changed})
        return
    done = {Act.CANCEL: "cancelled, or asked to stop", Act.REPLAY: "replayed"}[action]
    if dry_run:
        print(f"{found.matched}{' or more' if more else ''} runs would be {done}.")
    else:
        print(f"{changed} of {found.matched} runs were {done}.{' There are more.' if more else ''}")


def _of(client: Any, action: Act, reason: str | None) -> Any:
    if action is Act.CANCEL:
        return lambda which, **how: client.runs.cancel_many(**which, **how, **given(reason=reason))
    return lambda which, **how: client.runs.replay_many(**which, **how)


def _walk(call: Any, parts: list[dict[str, Any]], total: int, tell: Tell) -> tuple[int, bool]:
    """How many were changed, and whether more are left."""
    changed, left = 0, False
    for part in parts:
        step = MOST if part.get("states") == _RUNNING else STEP
        more = True
        while more:
            done = call(part, limit=step)
            changed += done.changed
            tell(changed, max(total, changed), "")
            more = done.more and done.changed > 0 and step == STEP
        left = left or done.more
    return changed, left


def _parts(action: Act, which: dict[str, Any]) -> list[dict[str, Any]]:
    """What is changed is not found again, but for running ones that are asked to stop: they are a part of their own."""
    if action is Act.REPLAY:
        # What is made meanwhile, and fails too, is not meant.
        return [{"until": datetime.now(UTC).isoformat(), **which}]
    asked = which.get("states") or [RunState.QUEUED.value, *_RUNNING]
    others = [each for each in asked if each not in _RUNNING]
    return [
        {**which, "states": states}
        for states in (others, _RUNNING if len(others) < len(asked) else [])
        if states
    ]
