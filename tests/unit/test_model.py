"""The arithmetic of the model: bounds that queueing theory gives for any costs."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.model.capacity import (
    BUSY,
    Machine,
    Station,
    beats_apart,
    beats_together,
    limit,
    processors,
    throughput,
)
from bench.model.costs import Costs

COSTS = Costs(
    claim_beat=30e-6,
    fire_beat=40e-6,
    fire_postgres=20e-6,
    fire_redis=2e-6,
    fire_wait=10e-6,
    skip=0.4e-6,
    company=0.8,
    run_worker=2e-3,
    run_postgres=400e-6,
    run_redis=50e-6,
    idle_postgres=50e-6,
    idle_redis=100e-6,
)
DEMANDS = st.floats(1e-6, 1.0)


@given(
    st.lists(st.tuples(DEMANDS, st.integers(1, 16)), min_size=1, max_size=4),
    DEMANDS,
    st.integers(1, 50),
)
@settings(max_examples=100, deadline=None)
def test_throughput_stays_below_what_the_busiest_station_and_the_customers_allow(
    hosts: list[tuple[float, int]], think: float, customers: int
) -> None:
    stations = [Station(demand, processors(cores)) for demand, cores in hosts]
    rate = throughput(stations, think, customers)
    alone = throughput(stations, think, 1)
    assert alone == pytest.approx(1 / (think + sum(each.demand for each in stations)))
    most = min(max(each.speeds) / each.demand for each in stations)
    assert rate <= min(customers * alone, most) * (1 + 1e-9)
    assert rate >= alone * (1 - 1e-9)


def test_two_customers_of_one_station_share_it() -> None:
    assert throughput([Station(0.5)], 0.0, 2) == pytest.approx(2.0)
    assert throughput([Station(0.5)], 1e9, 2) == pytest.approx(2e-9)


def test_two_customers_of_two_servers_do_not_wait_for_each_other() -> None:
    assert throughput([Station(0.5, (1.0, 2.0))], 0.5, 2) == pytest.approx(2.0)


def test_beats_slow_each_other_but_not_themselves() -> None:
    alone, strangers = replace(COSTS, company=0.5), replace(COSTS, company=1.0)
    assert beats_together(alone, 1, cores=2) == beats_together(strangers, 1, cores=2)
    for beats in (2, 3):
        assert beats_together(alone, beats, cores=2) < 0.7 * beats_together(strangers, beats, cores=2)
        assert beats_apart(alone, beats, Machine(8)) < 0.7 * beats_apart(strangers, beats, Machine(8))


def test_beats_on_the_cores_of_the_database_saturate_them() -> None:
    one, two, three = (beats_together(COSTS, beats, cores=2) for beats in (1, 2, 3))
    most = 2 * COSTS.company / (COSTS.claim_beat + COSTS.fire_postgres)
    assert one < two < most
    assert two < three < most
    # From then on each passes over the rows that the others hold, and there is no core for that.
    assert beats_together(COSTS, 50, cores=2) < two


def test_a_crowd_of_beats_passes_over_each_others_rows() -> None:
    machine = Machine(8)
    assert beats_apart(COSTS, 10, machine) > beats_apart(COSTS, 1, machine)
    assert beats_apart(COSTS, 300, machine) < beats_apart(COSTS, 10, machine)


@pytest.mark.parametrize(
    ("workers", "cores", "shards", "by"),
    [(1, 32, 1, "workers"), (1000, 2, 1, "PostgreSQL"), (6000, 64, 1, "Redis")],
)
def test_what_limits(workers: int, cores: int, shards: int, by: str) -> None:
    found = limit(COSTS, beats=5, workers=workers, slots=8, seconds=0.1, machine=Machine(cores, shards))
    assert found.by == by
    assert found.rate > 0
    assert found.rate <= BUSY * cores / COSTS.run_postgres


def test_workers_that_do_nothing_can_be_too_many() -> None:
    found = limit(COSTS, beats=1, workers=9000, slots=8, seconds=0.1, machine=Machine(64))
    assert (found.rate, found.by) == (0.0, "Redis")
