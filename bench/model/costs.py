"""What one firing and one run cost, by resource. Seconds of processor time, unless a field says otherwise."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Costs:
    """``fire_…`` for each tick (claim, decide, insert, advance, publish), ``run_…`` for each run (take, start, finish).

    ``claim_beat`` is the beat's share without publishing, ``fire_wait`` what of a firing with one beat is nobody's
    processor time: the disk and the way there. ``skip`` is a row that another beat holds and a claim passes over.
    ``idle_…`` is per second of a worker's main process with nothing to do. ``company`` is no time: the speed at which
    a beat and its session work while other beats work on the same database, of their speed alone.
    """

    claim_beat: float
    fire_beat: float
    fire_postgres: float
    fire_redis: float
    fire_wait: float
    skip: float
    company: float
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
