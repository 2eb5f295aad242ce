"""`edit`: from the commit of an edit that makes a schedule due at once to the message in Redis.

A static schedule is edited by starting beat anew, so for celery's own beat that is what is timed.
"""

import random
import time

from bench.beats.places import MAX_SLEEP
from bench.contestants import OURS, Beat, Contestant, Ended
from bench.engine.field import Field
from bench.figures import quantile
from bench.report import Figure

PATIENCE = 60.0


def measure(field: Field) -> None:
    """p50 and p99 (of few samples where an edit takes seconds)."""

    def look(each: Contestant) -> Figure:
        if each.name == "celery-beat":
            samples = [_by_restart(each) for _ in range(1 if field.quick else 2)]
        else:
            ours = each is field.ours
            wanted = (10 if ours else 2) if field.quick else (40 if ours else 4)
            samples = _by_edit(each, wanted)
        milliseconds = [sample * 1000 for sample in samples]
        p99 = round(quantile(milliseconds, 0.99), 1)
        return Figure(quantile(milliseconds, 0.5), {"p99": p99, "samples": len(samples)})

    field.compare("edit", "ms", look)


def _by_edit(each: Contestant, wanted: int) -> list[float]:
    each.arm(0, time.time() + 86_400)
    samples, phase = [], random.Random(1)
    with each.running("edit") as editor, each.running() as beat:
        editor.expect("ready", 60)
        beat.expect("imported", 60)
        beat.expect("ready", 180)
        time.sleep(0.5)
        for number in range(1, wanted + 1):
            # The last message came from a look at the schedules: an edit comes at any time after one.
            time.sleep(phase.uniform(0.0, MAX_SLEEP) if each.name != OURS else 0.0)
            before = each.sent()
            editor.tell(str(number))
            effective = editor.expect("edited", PATIENCE)["effective"]
            samples.append(max(0.0, _next_message(each, beat, before) - effective))
    each.forget_sent()
    return samples


def _by_restart(each: Contestant) -> float:
    each.arm(1, time.time() - 1)
    began = time.time()
    with each.running() as beat:
        return _next_message(each, beat, 0) - began


def _next_message(each: Contestant, beat: Beat, before: int) -> float:
    end = time.time() + PATIENCE
    while time.time() < end:
        if each.sent() > before:
            return time.time()
        if beat.process.poll() is not None:
            raise Ended("the beat ended")
        time.sleep(0.0005)
    raise Ended(f"the edit had no effect within {PATIENCE:g} s")
