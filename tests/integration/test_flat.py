"""What a worker and Redis keep of runs that have ended: nothing. `make bench ONLY=worker` shows it for 100,000."""

from itertools import pairwise
from pathlib import Path

from bench.chores import places
from bench.worker.crew import ours
from support.servers import Servers

STEPS, RUNS = 4, 300
LEAK = 0.3  # MB a step: a kilobyte a run


def test_memory_and_keys_do_not_grow_with_the_runs(servers: Servers, tmp_path: Path) -> None:
    """A leak shows in each step; what a process needs to get going, or takes in larger pieces, does not."""
    with ours(servers, tmp_path, "-c", "1", "--without-mingle", "--without-gossip") as crew:
        crew.rate(places.NOOP, RUNS)
        keys, resident = set(crew.broker.keys()), [crew.resident()]
        for _ in range(STEPS):
            crew.rate(places.NOOP, RUNS)
            resident.append(crew.resident())
        assert min(after - before for before, after in pairwise(resident)) < LEAK
        assert set(crew.broker.keys()) == keys
