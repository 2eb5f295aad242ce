"""The verbs of the user's own script: start, stop, restart, status, logs, purge, inspect; and doctor."""

import sys
from typing import Annotated

import typer

from app.cli.asking import ask
from app.cli.choices import DEFAULT, Service, Subject
from app.cli.schedules import Json
from app.scheduling.messages import QUEUES

daemons = typer.Typer()
NOT_RUNNING = 3  # exit status of `status` when something that was asked for does not run

Services = Annotated[
    list[Service] | None,
    typer.Argument(help="worker, beat, api, or all of them; worker and beat without.", show_default=False),
]


@daemons.command()
def start(services: Services = None) -> None:
    """Start worker and beat, or what is named, in the background; crashed ones are restarted.

    Without DATABASE_URL and REDIS_URL, PostgreSQL and Redis of our own are started and prepared too. Logs are in
    logs/celery/; logs/celery/worker_startup.log holds the worker's newest start alone.
    """
    from app.cli import services as verbs
    from app.cli.keeper import NotStarted

    try:
        verbs.start(verbs.chosen(services or (), DEFAULT))
    except NotStarted:
        raise typer.Exit(1) from None


@daemons.command()
def stop(services: Services = None) -> None:
    """Stop worker and beat, or what is named. A worker ends its runs first; servers end with the last service."""
    from app.cli import services as verbs

    verbs.stop(verbs.chosen(services or (), DEFAULT))


@daemons.command()
def restart(services: Services = None) -> None:
    """Stop and start worker and beat, or what is named, with the code of now.

    Variables of the environment stay those of the start: `upbeat stop all`, then `upbeat start`, for others.
    """
    from app.cli import services as verbs
    from app.cli.keeper import NotStarted

    try:
        verbs.restart(verbs.chosen(services or (), DEFAULT))
    except NotStarted:
        raise typer.Exit(1) from None


@daemons.command()
def status(services: Services = None, *, as_json: Json = False) -> None:
    """Say which services of this folder run. Exit status 3: one that was named (or worker or beat) does not."""
    from app.cli import services as verbs
    from app.cli.tables import show, span

    found = verbs.status()
    shown = found if not services else [each for each in found if each.service in verbs.chosen(services, ())]
    if as_json:
        show(shown, {}, as_json=True, empty="[]")
    else:
        rows = [
            {
                "service": each.service,
                "state": each.state,
                "pid": each.pid,
                "up": span(each.seconds),
                "log": each.log,
            }
            for each in shown
        ]
        columns = {"service": "service", "state": "state", "pid": "pid", "up": "up", "log": "log"}
        show(rows, columns, as_json=False, empty="")
    asked = verbs.chosen(services or (), DEFAULT)
    if any(each.state != "running" for each in found if each.service in asked):
        raise typer.Exit(NOT_RUNNING)


@daemons.command()
def logs(
    service: Annotated[Service, typer.Argument(help="worker, beat or api.")],
    lines: Annotated[
        int | None, typer.Argument(min=0, help="The last so many lines; without, the log is followed live.")
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log after these lines.")] = False,
) -> None:
    """Show a log: `logs worker` live until Ctrl-C, `logs worker 100` the last hundred lines."""
    from app.cli import logfiles

    if service is Service.ALL:
        raise typer.BadParameter("choose one of worker, beat and api", param_hint="SERVICE")
    file = logfiles.log_of(service)
    for line in logfiles.last_lines(file, logfiles.BEFORE_FOLLOWING if lines is None else lines):
        print(line)
    if follow or lines is None:
        sys.stdout.flush()
        try:
            for line in logfiles.follow(file):
                print(line, flush=True)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _queue(given: str | None) -> str | None:
    if given is not None and given not in QUEUES:
        raise typer.BadParameter(f"there is no queue of this name; use one of {', '.join(QUEUES)}")
    return given


@daemons.command()
def purge(
    queue: Annotated[
        str | None,
        typer.Argument(
            callback=_queue,
            autocompletion=lambda: list(QUEUES),
            help=f"{', '.join(QUEUES)}; all of them without.",
            show_default=False,
        ),
    ] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Cancel the runs that wait in a queue, or in all (reason `purged`), and drop their wake-ups. Running ones go on.

    Asks for the queue's name, or `all`, to be typed; `--yes` does without.
    """
    from app.cli import inspection

    queues, word = ([queue], queue) if queue else (list(QUEUES), "all")
    number = inspection.waiting_in(queues)
    place = f"the queue {queue}" if queue else "all queues"
    if number and not yes:
        print(f"Waiting in {place}: {number}. What is purged is never started.")
        if ask(f"Type {word} to purge", instead="--yes") != word:
            print("Nothing was purged.")
            raise typer.Exit(1)
    ended = inspection.purge(queues, number)
    print(f"Cancelled in {place}: {ended}.")


@daemons.command()
def inspect(
    subject: Annotated[Subject, typer.Argument(help="One of Celery's words; what each shows is said above.")],
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows at most.")] = 100,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=60, help="Seconds that workers get to answer.")
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Show what goes on.

    active: running runs, with their arguments. scheduled: runs that are due later, and the next tick of each
    schedule. reserved: runs that wait for a worker. queues: what waits in each, and who takes from it. revoked:
    cancelled runs. registered, stats, ping: what the workers answer.
    """
    from app.cli import inspection

    inspection.inspect(subject, limit=limit, seconds=timeout, as_json=as_json)


@daemons.command()
def doctor(
    *,
    canary: Annotated[bool, typer.Option(help="Send runs of a harmless task through every hop.")] = True,
    timeout: Annotated[float, typer.Option(min=1, max=600, help="Seconds that these runs get.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Find out what is wrong, and say what to do: environment, servers, services, schedules, the way of a run, logs.

    Exit status 3: a check failed.
    """
    from app.cli.doctor import examine, exit_status
    from app.cli.doctor.report import report

    found = report(examine(canary=canary, patience=timeout, quiet=as_json), as_json=as_json)
    raise typer.Exit(exit_status(found))
