"""One beat of the comparison, run in its own environment: `python -m bench.beats NAME VERB …`.

    fill COUNT      make COUNT schedules, none of them due today
    arm DUE AT      make the first DUE of them due at the instant AT (seconds since the epoch)
    run             be the beat; says when it has imported, and when its first tick is done
    edit            for each number that is read from stdin, make that schedule due at once

Each answer is one line of JSON. A contestant is a module with the functions `fill`, `arm`, `service`
and `edit`; everything here is the same for all of them. Celery's own loop (`celery.beat.Service`)
drives every scheduler, with logging at warnings.
"""

import importlib
import json
import logging
import sys
import time
from typing import Any


def say(event: str, **facts: Any) -> None:
    """One line for the harness."""
    print(json.dumps({"event": event, **facts}), flush=True)


def run(contestant: Any) -> None:
    """Be the beat until killed."""
    say("imported")
    began = time.perf_counter()
    service = contestant.service()
    tick = service.scheduler.tick

    def first(*arguments: Any, **options: Any) -> Any:
        service.scheduler.tick = tick
        delay = tick(*arguments, **options)
        say("ready", seconds=time.perf_counter() - began)
        return delay

    service.scheduler.tick = first
    service.start()


def edit(contestant: Any) -> None:
    """Answer each edit with the instant from which it should show."""
    contestant.prepare_edits()
    say("ready")
    for line in sys.stdin:
        say("edited", effective=contestant.edit(int(line)))


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    name, verb, *rest = sys.argv[1:]
    contestant = importlib.import_module(f"bench.beats.{name}")
    if verb == "run":
        run(contestant)
    elif verb == "edit":
        edit(contestant)
    elif verb == "fill":
        contestant.fill(int(rest[0]))
        say("filled")
    elif verb == "arm":
        contestant.arm(int(rest[0]), float(rest[1]))
        say("armed")


main()
