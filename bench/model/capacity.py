"""Where it saturates: the laws of queueing networks, applied to the costs.

What is nobody's processor time is taken for the one disk that the log is written to, so it is a queue as well. Beats
are a closed network: each goes round its batch, with the cores of a host as one station that all on it share. Workers
are an open one: a resource of `m` cores does at most `m / demand` runs a second, and the smallest is the limit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from bench.model.costs import Costs

# A processor that is busier than this makes everybody wait for long.
BUSY = 0.8


@dataclass(frozen=True, slots=True)
class Machine:
    """``postgres_cores`` of the database's host, ``redis_shards`` that the queues are spread over."""

    postgres_cores: int
    redis_shards: int = 1


@dataclass(frozen=True, slots=True)
class Limit:
    """Runs a second, and what they are limited by."""

    rate: float
    by: str


@dataclass(frozen=True, slots=True)
class Station:
    """Takes ``demand`` seconds of its one server for each unit of work; with so many customers there it is as many
    times faster as ``speeds`` say, from one on. The last of them holds for more.
    """

    demand: float
    speeds: tuple[float, ...] = (1.0,)

    def speed(self, customers: int) -> float:
        """Of the whole station."""
        return self.speeds[min(customers, len(self.speeds)) - 1]


def processors(cores: int) -> tuple[float, ...]:
    """The speeds of a host."""
    return tuple(float(busy) for busy in range(1, cores + 1))


def throughput(stations: Sequence[Station], think: float, customers: int) -> float:
    """Units of work a second of a closed network whose customers go from station to station, and think between.

    Exact, by the ratio of its normalising constants (Buzen): they are sums of positive numbers, so nothing cancels.
    """
    total = think + sum(each.demand for each in stations)
    # In units of about the time that one unit of work takes in the end, so that no constant leaves the floats.
    unit = max(total / customers, *(each.demand / max(each.speeds) for each in stations))
    counts = range(1, customers + 1)
    constants = list(accumulate(counts, lambda term, count: term * think / unit / count, initial=1.0))
    for each in stations:
        factors = list(accumulate(counts, _factor(each, unit), initial=1.0))
        constants = [
            sum(constants[own] * factors[count - own] for own in range(count + 1)) for count in (0, *counts)
        ]
    return constants[-2] / constants[-1] / unit


def _factor(station: Station, unit: float) -> Callable[[float, int], float]:
    return lambda term, count: term * station.demand / unit / station.speed(count)


def beats_together(costs: Costs, beats: int, cores: int) -> float:
    """Claims a second of beats that share their cores with PostgreSQL, and publish nothing: what can be measured."""
    processor = costs.claim_beat / _pace(costs, beats) + _fire_postgres(costs, beats)
    stations = [Station(processor, processors(cores)), Station(costs.fire_wait)]
    return throughput(stations, 0.0, beats)


def beats_apart(costs: Costs, beats: int, machine: Machine) -> float:
    """Fires a second of beats on hosts of their own, publishing included."""
    stations = [
        Station(_fire_postgres(costs, beats), processors(machine.postgres_cores)),
        Station(costs.fire_redis / machine.redis_shards),
        Station(costs.fire_wait),
    ]
    return throughput(stations, costs.fire_beat / _pace(costs, beats), beats)


def _fire_postgres(costs: Costs, beats: int) -> float:
    """With what a claim spends on the rows of all others, each of which holds a batch for nearly all of its round."""
    return costs.fire_postgres / _pace(costs, beats) + costs.skip * (beats - 1)


def _pace(costs: Costs, beats: int) -> float:
    return costs.company if beats > 1 else 1.0


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
    return Limit(bounds[by], by)
