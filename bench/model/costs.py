"""What one firing and one run cost, by resource. Seconds of processor time, unless a field says otherwise."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """``fire_…`` for each tick (claim, decide, insert, advance, publish), ``run_…`` for each run (take, start, finish).

    ``claim_beat`` is the beat's share without publishing, ``fire_wait`` what of a firing with one beat is nobody's
    processor time: the disk and the way there. ``skip`` is a row that another beat holds and a claim passes over.
    ``idle_…`` is per second of a worker's main process with nothing to do. ``shared`` is no time: the speed of a
    core while all others are busy, of its speed while they rest.
    """

    claim_beat: float
    fire_beat: float
    fire_postgres: float
    fire_redis: float
    fire_wait: float
    skip: float
    shared: float
    run_worker: float
    run_postgres: float
    run_redis: float
    idle_postgres: float
    idle_redis: float


@dataclass(frozen=True, slots=True)
class Point:
    """Claims a second that so many beats reached on one machine; ``rounds`` are all of its measurements."""

    beats: int
    rate: float
    rounds: tuple[float, ...]
