"""Which checks there are, in which order, and which of them make sense after another one failed."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.cli.doctor import errors, packages, servers, services
from app.cli.doctor.canary import canaries
from app.cli.doctor.findings import Finding, Stopwatch, Verdict, fail, ok, skipped
from app.db.engines import sync_engine, sync_sessions
from app.errors import ConfigurationError, UpbeatError
from app.scheduling.messages import QUEUES
from app.settings import Settings, get_settings
from app.worker import catalogue

PATIENCE = 10.0  # seconds
FAILED = 3  # exit status


def examine(
    *, canary: bool = True, patience: float = PATIENCE, lock: Path = packages.LOCK, quiet: bool = True
) -> Iterator[Finding]:
    """All findings, as they are made; with ``canary`` runs are sent, which get ``patience`` seconds.

    Unless ``quiet``, a terminal shows how many of them are back.
    """
    watch = Stopwatch()
    for finding in _examine(canary=canary, patience=patience, lock=lock, quiet=quiet):
        yield watch.timed(finding)


def exit_status(found: Iterable[Finding]) -> int:
    """3 if a check failed, else 0."""
    return FAILED if any(each.verdict is Verdict.FAIL for each in found) else 0


def _examine(*, canary: bool, patience: float, lock: Path, quiet: bool) -> Iterator[Finding]:
    yield packages.python()
    yield packages.packages(lock)
    try:
        settings = get_settings()
    except ConfigurationError as error:
        yield fail("settings", error.detail, "Correct the variable; the other checks need the settings.")
        return
    yield ok("settings", "all environment variables can be used")
    yield (tasks := _tasks())
    loaded = tasks.verdict is Verdict.OK
    database = list(servers.postgres(settings))
    yield from database
    stored = all(each.verdict is not Verdict.FAIL for each in database)
    broker = list(servers.redis_server(settings))
    yield from broker
    yield services.api(settings)
    if stored:
        canary_now = canary and loaded and _answers(broker)
        yield from _about_tables(settings, loaded=loaded, canary=canary_now, patience=patience, quiet=quiet)
    else:
        yield skipped("workers, beat, schedules", "they are known from the database only")
    if canary and not (stored and loaded and _answers(broker)):
        yield skipped("canary", "it needs PostgreSQL and Redis, and tasks that can be loaded")
    yield errors.errors()


def _answers(broker: Iterable[Finding]) -> bool:
    return any(each.check == "redis" and each.verdict is Verdict.OK for each in broker)


def _tasks() -> Finding:
    """Whether the modules with tasks can be imported; whatever they raise is theirs."""
    remedy = "Mend the module that it names: worker and beat load the same ones, and do not start without."
    try:
        number = sum(1 for _ in catalogue())
    except ConfigurationError as error:
        return fail("tasks", error.detail, remedy)
    except Exception as error:  # noqa: BLE001 - code of the user's runs at import
        return fail("tasks", f"a module cannot be loaded: {type(error).__name__}: {error}", remedy)
    return ok("tasks", f"{number} are known to this code")


def _about_tables(
    settings: Settings, *, loaded: bool, canary: bool, patience: float, quiet: bool
) -> Iterator[Finding]:
    engine = sync_engine(settings.database, name="upbeat-doctor")
    sessions = sync_sessions(engine)
    checks: tuple[Callable[[Session], Iterable[Finding]], ...] = (
        services.workers,
        lambda session: [services.beat(session, settings)],
        lambda session: services.schedules(session, catalogue() if loaded else None),
    )
    made: list[Finding] = []
    try:
        for check in checks:
            with sessions() as session:
                made += (found := list(check(session)))
            yield from found
        if canary:
            yield from _canaries(settings, made, patience, quiet=quiet)
    except DBAPIError as error:
        yield fail(
            "database",
            str(error.orig).strip().splitlines()[0],
            "Run `upbeat migrate`; then look at the log of PostgreSQL.",
        )
    finally:
        engine.dispose()


def _canaries(
    settings: Settings, made: Iterable[Finding], patience: float, *, quiet: bool
) -> Iterator[Finding]:
    """To queues that somebody takes from; of the others it is known where they would end."""
    alive = {each.check for each in made if each.verdict is Verdict.OK}
    queues = [queue for queue in QUEUES if f"worker of {queue}" in alive]
    for queue in QUEUES:
        if queue not in queues:
            yield skipped(f"canary to {queue}", "no worker takes from it")
    through_beat = "beat" in alive and "system" in queues
    if not through_beat:
        yield skipped("canary through beat", "it needs a beat, and a worker of system")
    if not queues:
        return
    try:
        yield from canaries(settings, queues, through_beat=through_beat, patience=patience, quiet=quiet)
    except UpbeatError as error:
        yield fail(
            "canary", f"hop database: the runs could not be stored: {error.detail}", "Mend what it names."
        )
