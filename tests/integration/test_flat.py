"""What a worker and Redis keep of runs that have ended: nothing. `make bench ONLY=worker` shows it for 100,000."""

from pathlib import Path

from bench.worker.crew import ours
from bench.workers import places
from support.servers import Servers

WARM, RUNS = 200, 800
LEAK = 0.8  # MB: a kilobyte a run


def test_memory_and_keys_do_not_grow_with_the_runs(servers: Servers, tmp_path: Path) -> None:
    with ours(servers, tmp_path, "-c", "1", "--without-mingle", "--without-gossip") as crew:
        crew.rate(places.NOOP, WARM)
        before, keys = crew.resident(), set(crew.broker.keys())
        crew.rate(places.NOOP, RUNS)
        assert crew.resident() - before < LEAK
        assert set(crew.broker.keys()) == keys
