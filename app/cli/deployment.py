"""The work of `upbeat schedules`, and of what follows a migration."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from app.cli.progress import Tell, working
from app.cli.recorded import CommandLine
from app.cli.tables import print_json
from app.db.companions import accompanied
from app.db.engines import async_engine, async_sessions
from app.scheduling.declared import Action, Prune, Step
from app.scheduling.deployment import Deployed, Deployment
from app.scheduling.drift import Drift
from app.settings import Settings, get_settings
from app.worker import catalogue
from app.worker.declared import declared

T = TypeVar("T")
_DONE = {
    Action.CREATE: "created",
    Action.UPDATE: "updated",
    Action.DELETE: "deleted",
    Action.DISABLE: "disabled",
    Action.ORPHANED: "not declared any more (`upbeat schedules apply --prune` deletes them)",
}
CHANGES = 2  # exit status of a plan that is not empty, and of a check that found something
ACTOR = "upbeat schedules"
SHOWN = 40


def plan(*, prune: bool, as_json: bool) -> int:
    """Print what `apply` would do; 2 if something would change."""
    given = declared(get_settings())
    steps = _run(
        get_settings(),
        lambda deployment: deployment.plan(given, prune=Prune.DELETE if prune else None),
        "Comparing",
        quiet=as_json,
    )
    _print_steps(steps, as_json=as_json, said="Plan")
    return CHANGES if any(step.changing for step in steps) else 0


def apply(*, prune: str | None, as_json: bool) -> None:
    """Apply what is declared, and print what was done. ``prune`` is `delete`, `disable` or None."""
    given, how = declared(get_settings()), None if prune is None else Prune(prune)
    steps = _run(
        get_settings(),
        lambda deployment: deployment.apply(given, actor=ACTOR, prune=how),
        "Applying",
        quiet=as_json,
    )
    _print_steps(steps, as_json=as_json, said="Done")


def check(*, as_json: bool) -> int:
    """Check all schedules, and print what was found; 2 if some do not fit their tasks."""
    found = _run(get_settings(), lambda deployment: deployment.check(), "Checking", quiet=as_json)
    if as_json:
        print_json(drift_as_json(found))
    else:
        print("\n".join(drift_lines(found)))
    return CHANGES if found.unfit else 0


def deploy(settings: Settings) -> Deployed:
    """What follows a migration: apply what is declared, and check all schedules.

    Raises:
        InvalidInput: a declaration is not valid; nothing was applied.
    """
    given = declared(settings)
    return _run(
        settings, lambda deployment: deployment.deploy(given, actor="upbeat migrate"), "Deploying schedules"
    )


def headlines(done: Deployed) -> list[str]:
    """What a deployment did, a line for each part in which something changed."""
    counts = Counter(step.action for step in done.steps if step.action is not Action.UNCHANGED)
    words = ", ".join(f"{count} {_DONE[action]}" for action, count in counts.items())
    lines = [f"Declared schedules: {words}."] if words else []
    return [*lines, *drift_lines(done.drift)] if done.drift.findings else lines


def summary(done: Deployed) -> list[str]:
    """What a deployment did, a line for each schedule; nothing when nothing changed."""
    changed = [step for step in done.steps if step.changing]
    orphans = [step for step in done.steps if step.action is Action.ORPHANED]
    lines = [_line(step) for step in changed[:SHOWN]]
    if len(changed) > SHOWN:
        lines.append(f"… and {len(changed) - SHOWN} more declared schedules")
    if orphans:
        keys = ", ".join(step.key for step in orphans[:SHOWN])
        lines.append(f"Not declared any more: {keys}. `upbeat schedules apply --prune` deletes them.")
    return [*lines, *drift_lines(done.drift)] if done.drift.findings else lines


def drift_lines(found: Drift) -> list[str]:
    """A check, for people."""
    counts = ", ".join(f"{count} {change}" for change, count in found.counts.items() if count)
    lines = [f"{found.checked} schedules checked: {counts or 'all fit their tasks'}."]
    lines += [
        f"  {each.change:<12} {each.schedule_id} {each.task_path}{f': {each.reason}' if each.reason else ''}"
        for each in found.findings[:SHOWN]
    ]
    more = sum(found.counts.values()) - SHOWN
    return [*lines, f"  … and {more} more"] if more > 0 else lines


def drift_as_json(found: Drift) -> dict[str, Any]:
    """A check, for programs."""
    return {
        "checked": found.checked,
        **{change.value: count for change, count in found.counts.items()},
        "findings": [
            {
                "schedule_id": str(each.schedule_id),
                "task_path": each.task_path,
                "state": each.state,
                "change": each.change.value,
                "reason": each.reason,
            }
            for each in found.findings
        ],
    }


def _run(
    settings: Settings, work: Callable[[Deployment], Awaitable[T]], what: str, *, quiet: bool = False
) -> T:
    # What is logged for operators of services is printed here.
    logging.getLogger("app").addHandler(logging.NullHandler())

    async def connected(tell: Tell) -> T:
        engine = async_engine(settings.database, name="upbeat-schedules")
        try:
            with accompanied(CommandLine("deploy_schedules", "scheduled-tasks")):
                sessions = async_sessions(engine)
                return await work(
                    Deployment(sessions, catalogue(), lambda done, total: tell(done, total, ""))
                )
        finally:
            await engine.dispose()

    with working(what, quiet=quiet) as tell:
        return asyncio.run(connected(tell))


def _print_steps(steps: Iterable[Step], *, as_json: bool, said: str) -> None:
    if as_json:
        print_json([_as_json(step) for step in steps])
        return
    counts = dict.fromkeys(Action, 0)
    for step in steps:
        counts[step.action] += 1
        if step.action is not Action.UNCHANGED:
            print(_line(step))
    words = ", ".join(f"{count} {action}" for action, count in counts.items() if count)
    print(f"{said}: {words or 'nothing is declared'}.")


def _line(step: Step) -> str:
    lines = [f"  {step.action:<10} {step.owner}: {step.key}"]
    lines += [
        f"      {name}: {_text(before)} -> {_text(after)}" for name, (before, after) in step.changes.items()
    ]
    return "\n".join(lines)


def _as_json(step: Step) -> dict[str, Any]:
    return {
        "owner": step.owner.value,
        "key": step.key,
        "action": step.action.value,
        "schedule_id": None if step.schedule_id is None else str(step.schedule_id),
        "changes": {name: {"from": before, "to": after} for name, (before, after) in step.changes.items()},
    }


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
