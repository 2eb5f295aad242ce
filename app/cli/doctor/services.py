"""API, workers, beats and schedules: alive, and in order."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.cli.client import address
from app.cli.doctor.findings import Finding, fail, ok, warn
from app.cli.state import wanted
from app.scheduling import drift, inspecting
from app.scheduling.catalogue import Catalogue
from app.scheduling.inspecting import KnownBeat, QueueState
from app.settings import Settings

OVERDUE = 60.0  # seconds
SHOWN = 3

_LOST = text("""
SELECT name, CAST(extract(epoch FROM clock_timestamp() - lease_expires_at) AS double precision) AS seconds
FROM celery_workers
WHERE stopped_at IS NULL AND lease_expires_at < clock_timestamp()
  AND lease_expires_at > clock_timestamp() - interval '1 hour'
ORDER BY lease_expires_at DESC
LIMIT 3
""")

_INVALID = text("""
SELECT task_name, state_reason FROM celery_periodic_task_configs WHERE state = 'invalid' ORDER BY id LIMIT 1000
""")

_STATES = text("SELECT state, count(*) AS number FROM celery_periodic_task_configs GROUP BY state")

_OVERDUE = text("""
SELECT count(*) AS number,
       CAST(extract(epoch FROM clock_timestamp() - min(next_run_at)) AS double precision) AS seconds
FROM celery_periodic_task_clocks
WHERE next_run_at < (SELECT clock_timestamp()) - make_interval(secs => :seconds)
""")


def api(settings: Settings) -> Finding:
    """The API at UPBEAT_URL or this host's port: there, ours, and ready."""
    url = address(settings.api)
    try:
        answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
        report: Any = answer.json()
        checks: Mapping[str, Any] = report["checks"]
    except httpx.ConnectError:
        found = f"nothing listens at {url}"
        if settings.api.url:
            return fail("api", found, "Start it there, or correct UPBEAT_URL.")
        # Who has started worker and beat here, and no API, wanted none.
        judge = warn if wanted() and "api" not in wanted() else fail
        return judge("api", found, "Start it: `upbeat start api`. UPBEAT_PORT chooses the port.")
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return fail(
            "api",
            f"{url} does not answer ({type(error).__name__})",
            "Look at `upbeat logs api 50`; restart it: `upbeat restart api`.",
        )
    except (ValueError, KeyError, TypeError):
        return fail(
            "api",
            f"another program answers at {url}",
            "Correct UPBEAT_URL." if settings.api.url else "End that one, or choose another UPBEAT_PORT.",
        )
    bad = [f"{name}: {check['detail']}" for name, check in checks.items() if not check["ok"]]
    if bad:
        return fail(
            "api", f"{url} is not ready: {' '.join(bad)}", "Mend what it names; it becomes ready by itself."
        )
    return ok("api", f"{url} is ready")


def workers(session: Session) -> Iterator[Finding]:
    """For each queue, who takes from it."""
    states = inspecting.queues(session)
    lost = [f"{row.name} lost contact {row.seconds:.0f} s ago" for row in session.execute(_LOST)]
    for state in states:
        yield queue(state, lost)


def queue(state: QueueState, lost: Sequence[str]) -> Finding:
    """``lost`` tells of workers that are gone without having said so."""
    check = f"worker of {state.queue}"
    if state.workers:
        number = "1 worker takes" if state.workers == 1 else f"{state.workers} workers take"
        return ok(check, f"{number} from it; waiting: {state.waiting}, running: {state.running}")
    gone = f" ({'; '.join(lost)})" if lost else ""
    return fail(
        check,
        f"no living worker takes from it{gone}; waiting: {state.waiting}",
        "Start one: `upbeat start worker`. If it does not start: cat logs/celery/worker_startup.log. One that was"
        f" started with -Q takes only from the queues that are named there: add {state.queue}.",
    )


def beat(session: Session, settings: Settings) -> Finding:
    """Whether a beat passes."""
    return judge_beats(inspecting.beats(session), settings.api.ready_beat_age)


def judge_beats(known: Sequence[KnownBeat], patience: float) -> Finding:
    """The newest pass, against what is usual."""
    if not known:
        return fail("beat", "no beat has ever passed", "Start one: `upbeat start beat`.")
    newest = known[0]
    if newest.age > patience:
        return fail(
            "beat",
            f"the last pass was {newest.age:.0f} s ago, of {newest.name} (pid {newest.pid}): it has ended, hangs, or"
            " cannot reach the database",
            "Start it again: `upbeat restart beat`; `upbeat logs beat 50` says what it wrote last.",
        )
    alive = sum(1 for each in known if each.age <= patience)
    return ok("beat", f"{alive} alive; the last pass was {max(newest.age, 0):.1f} s ago")


def schedules(session: Session, catalogue: Catalogue | None) -> Iterator[Finding]:
    """Valid, fitting their tasks (where those are known), and fired in time."""
    invalid = [f"“{row.task_name}”: {row.state_reason}" for row in session.execute(_INVALID)]
    # Those that became invalid are told of already.
    unfit = [
        f"{each.task_path}: {each.reason}"
        for each in (drift.look(session, catalogue) if catalogue is not None else [])
        if each.state == "active"
    ]
    wrong = [*invalid, *unfit]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        yield fail(
            "schedules",
            f"{len(wrong)} cannot fire: {'; '.join(wrong[:SHOWN])}{more}",
            "Correct task, arguments or timing; `upbeat schedules check` lists all, and mends those that fit again.",
        )
    else:
        counts = ", ".join(f"{row.number} {row.state}" for row in session.execute(_STATES))
        yield ok("schedules", f"all valid ({counts or 'there are none'})")
    late = session.execute(_OVERDUE, {"seconds": OVERDUE}).one()
    if late.number:
        yield fail(
            "ticks",
            f"{late.number} schedules are overdue, the first by {late.seconds:.0f} s: beats do not fire them",
            "Start a beat, or more of them: `upbeat logs beat 50` says what it does.",
        )
    else:
        yield ok("ticks", "no schedule is overdue")
