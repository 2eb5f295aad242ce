"""Where it saturates: the laws of queueing networks, applied to the costs.

What is nobody's processor time is taken for the one disk that the log is written to, so it is a queue as well. Beats
are a closed network: each goes round its batch, so mean value analysis gives their rate. Workers are an open
one: a resource of `m` cores does at most `m / demand` runs a second, and the smallest of these is the limit.
"""

from dataclasses import dataclass

from bench.model.costs import Costs

# A processor that is busier than this makes everybody wait for long.
BUSY = 0.8
# What one PostgreSQL is usually allowed; a pooler in transaction mode gives more clients the same.
CONNECTIONS_EACH = 3


@dataclass(frozen=True, slots=True)
class Machine:
    """``postgres_cores`` of the database's host, ``redis_shards`` that the queues are spread over."""

    postgres_cores: int
    redis_shards: int = 1


@dataclass(frozen=True, slots=True)
class Limit:
    """Runs a second, and what they are limited by. ``connections`` are those that the workers hold."""

    rate: float
    by: str
    connections: int


def mean_value(stations: list[tuple[float, int]], think: float, customers: int) -> float:
    """Throughput of a closed network: each customer demands so many seconds of stations of so many cores, and thinks.

    Several cores are taken as one that is as many times faster, and a wait of what that leaves out (Seidmann).
    """
    queueing = [demand / cores for demand, cores in stations]
    delay = think + sum(demand * (cores - 1) / cores for demand, cores in stations)
    lengths = [0.0] * len(queueing)
    rate = 0.0
    for count in range(1, customers + 1):
        times = [demand * (1 + length) for demand, length in zip(queueing, lengths, strict=True)]
        rate = count / (delay + sum(times))
        lengths = [rate * time for time in times]
    return rate


def beats_together(costs: Costs, beats: int, cores: int) -> float:
    """Claims a second of beats that share their cores with PostgreSQL, and publish nothing: what can be measured."""
    processor = costs.claim_beat + _fire_postgres(costs, beats)
    return mean_value([(processor, cores), (costs.fire_wait, 1)], 0.0, beats)


def beats_apart(costs: Costs, beats: int, machine: Machine) -> float:
    """Fires a second of beats on hosts of their own, publishing included."""
    stations = [
        (_fire_postgres(costs, beats), machine.postgres_cores),
        (costs.fire_redis / machine.redis_shards, 1),
        (costs.fire_wait, 1),
    ]
    return mean_value(stations, costs.fire_beat, beats)


def _fire_postgres(costs: Costs, beats: int) -> float:
    """With what a claim spends on the rows that the others hold: half of a batch each, on average."""
    return costs.fire_postgres + costs.skip * (beats - 1) / 2


def limit(costs: Costs, *, beats: int, workers: int, slots: int, seconds: float, machine: Machine) -> Limit:
    """Ticks a second that are fired and run in the long run; ``seconds`` is what a task's body takes."""
    idle_postgres, idle_redis = workers * costs.idle_postgres, workers * costs.idle_redis
    postgres_left = max(0.0, BUSY * machine.postgres_cores - idle_postgres)
    redis_left = max(0.0, BUSY * machine.redis_shards - idle_redis)
    bounds = {
        "beats": beats_apart(costs, beats, machine),
        "PostgreSQL": postgres_left / (_fire_postgres(costs, beats) + costs.run_postgres),
        "Redis": redis_left / (costs.fire_redis + costs.run_redis),
        "workers": workers * slots / (seconds + costs.run_worker),
    }
    by = min(bounds, key=bounds.__getitem__)
    return Limit(bounds[by], by, workers * CONNECTIONS_EACH)
