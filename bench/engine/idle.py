"""`startup`, `memory` and `idle`: a beat with nothing due.

Start-up is from after the imports to the end of the first tick; memory is what the process holds
then; idle is its share of one core, the database's and broker's own work not counted.
"""

import time
from statistics import median

from bench.contestants import Contestant
from bench.engine.field import BENCH, Field
from bench.report import Figure, compare

PATIENCE = 180.0


def measure(field: Field) -> None:
    """Report all three."""
    rounds = 1 if field.quick else 3
    starts: dict[str, list[float]] = {each.name: [] for each in (field.ours, *field.peers)}
    for _ in range(rounds - 1):
        for each in (field.ours, *field.peers):
            if each is field.ours or field.size < 100_000:
                with each.running() as beat:
                    beat.expect("imported", 60)
                    starts[each.name].append(beat.expect("ready", PATIENCE)["seconds"])
    # Whole periods of five seconds, after which all of them look again.
    seconds = 5.0 if field.quick else 10.0

    def look(each: Contestant) -> Figure:
        with each.running() as beat:
            beat.expect("imported", 60)
            starts[each.name].append(beat.expect("ready", PATIENCE)["seconds"])
            memory = beat.memory()
            time.sleep(1.0)
            before, began = beat.cpu(), time.perf_counter()
            time.sleep(seconds)
            share = (beat.cpu() - before) / (time.perf_counter() - began)
            each.startup = median(starts[each.name])
            return Figure(each.startup, {"memory": memory, "idle": share * 100})

    figures = field.each(look)
    for name, unit, take in (
        ("startup", "s", lambda f: Figure(f.value)),
        (
            "memory",
            "MB",
            lambda f: Figure(f.more["memory"]["rss"], {"pss": round(f.more["memory"]["pss"], 1)}),
        ),
        ("idle", "% of a core", lambda f: Figure(f.more["idle"])),
    ):
        taken = {who: None if f is None else take(f) for who, f in figures.items()}
        own = taken.pop(field.ours.name)
        if own is not None:
            compare(BENCH, name, field.size, unit, ours=own, peers=taken)
