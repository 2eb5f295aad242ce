"""`sustained`: 1,000 schedules due each second, evenly, for a minute; lateness of the arrivals in Redis."""

import time
from datetime import UTC, datetime

from bench.beats.population import arm_evenly
from bench.contestants import arrivals
from bench.engine.field import BENCH, Field
from bench.figures import weighted_quantile
from bench.report import report

RATE = 1_000


def measure(field: Field) -> None:
    """As many seconds as there are schedules for, 60 at most (10 when quick)."""
    seconds = min(10 if field.quick else 60, field.size // RATE)
    due, sessions = seconds * RATE, field.sessions()
    at = time.time() + 4.0 + field.size / 50_000
    arm_evenly(sessions, due, datetime.fromtimestamp(at, UTC), RATE)
    with field.ours.running() as beat:
        beat.expect("imported", 60)
        beat.expect("ready", 60)
        before, began = beat.cpu(), time.time()
        curve = arrivals(field.ours, due, at, seconds + 10.0)
        share = (beat.cpu() - before) / (time.time() - began)
    late: list[tuple[float, int]] = []
    arrived = 0
    for after, count in curve:
        # Schedule n (from 1) is due n / RATE seconds after ``at``, and they come in this order.
        late.extend((after - (arrived + n) / RATE, 1) for n in range(1, count + 1))
        arrived += count
    p50, p99, worst = (weighted_quantile(late, share) * 1000 for share in (0.5, 0.99, 1.0))
    report(
        BENCH,
        "sustained-lateness-p99",
        field.size,
        p99,
        "ms",
        p50=round(p50, 1),
        worst=round(worst, 1),
        rate=RATE,
        seconds=seconds,
        due=due,
        arrived=arrived,
        beat_cpu=round(share * 100, 1),
    )
    field.ours.forget_sent()
