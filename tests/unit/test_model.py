"""The arithmetic of the model: bounds that queueing theory gives for any costs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.model.capacity import BUSY, Machine, beats_apart, beats_together, limit, mean_value
from bench.model.costs import Costs

COSTS = Costs(
    claim_beat=30e-6,
    fire_beat=40e-6,
    fire_postgres=20e-6,
    fire_redis=2e-6,
    fire_wait=10e-6,
    skip=0.4e-6,
    run_worker=2e-3,
    run_postgres=400e-6,
    run_redis=50e-6,
    idle_postgres=50e-6,
    idle_redis=100e-6,
)
DEMANDS = st.floats(1e-6, 1.0)


@given(st.lists(st.tuples(DEMANDS, st.integers(1, 16)), min_size=1, max_size=4), DEMANDS, st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_throughput_stays_below_what_the_busiest_station_and_the_customers_allow(
    stations: list[tuple[float, int]], think: float, customers: int
) -> None:
    rate = mean_value(stations, think, customers)
    alone = mean_value(stations, think, 1)
    assert alone == pytest.approx(1 / (think + sum(demand for demand, _ in stations)))
    assert rate <= min(customers * alone, *(cores / demand for demand, cores in stations)) * (1 + 1e-9)
    assert rate >= alone * (1 - 1e-9)


def test_two_customers_of_one_station_share_it() -> None:
    assert mean_value([(0.5, 1)], 0.0, 2) == pytest.approx(2.0)
    assert mean_value([(0.5, 1)], 1e9, 2) == pytest.approx(2e-9)


def test_beats_on_the_cores_of_the_database_saturate_them() -> None:
    two, many = beats_together(COSTS, 2, cores=2), beats_together(COSTS, 50, cores=2)
    assert two < many < 2 / (COSTS.claim_beat + COSTS.fire_postgres)


def test_a_crowd_of_beats_passes_over_each_others_rows() -> None:
    machine = Machine(8)
    assert beats_apart(COSTS, 10, machine) > beats_apart(COSTS, 1, machine)
    assert beats_apart(COSTS, 1000, machine) < beats_apart(COSTS, 10, machine)


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
