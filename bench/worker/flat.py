"""`flat`: what a worker holds in memory, and how many keys there are in Redis, over 100,000 runs."""

from pathlib import Path
from statistics import linear_regression

from bench.chores import places
from bench.report import report
from bench.worker.crew import ours
from support.servers import Servers

RUNS = 100_000
STEP = 5_000


def measure(servers: Servers, folder: Path, *, quick: bool) -> None:
    """Slopes are of the second half: a worker fills its caches and pools with the first runs."""
    runs = RUNS // 10 if quick else RUNS
    step = STEP // 5 if quick else STEP
    resident: list[float] = []
    keys: list[int] = []
    with ours(servers, folder, "-c", "2") as crew:
        for _ in range(runs // step):
            crew.rate(places.NOOP, step)
            resident.append(crew.resident())
            keys.append(int(crew.broker.dbsize()))
    half = len(resident) // 2
    done = [float(step * (n + 1)) for n in range(len(resident))]
    slope = linear_regression(done[half:], resident[half:]).slope
    shared = {"step": step, "runs": runs}
    report(
        "worker",
        "memory",
        runs,
        slope * 10_000,
        "MB in 10,000 runs",
        resident=[round(size, 1) for size in resident],
        **shared,
    )
    slope = linear_regression(done[half:], [float(number) for number in keys[half:]]).slope
    report("worker", "redis-keys", runs, slope * 10_000, "keys in 10,000 runs", keys=keys, **shared)
