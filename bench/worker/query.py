"""`query`: a body that awaits one query, beside one that does nothing, in two prefork children of ours."""

from pathlib import Path
from statistics import median

from bench.chores import places
from bench.report import report
from bench.worker.crew import ours
from support.servers import Servers

WARM = 300


def measure(servers: Servers, folder: Path, *, quick: bool) -> None:
    """In turns, by the same worker."""
    count, rounds = (800, 2) if quick else (3_000, 5)
    rates: dict[str, list[float]] = {places.NOOP: [], places.QUERY: []}
    with ours(servers, folder, "-c", "2") as crew:
        for task in rates:
            crew.rate(task, WARM)
        for _ in range(rounds):
            for task, found in rates.items():
                found.append(crew.rate(task, count))
    report(
        "worker",
        "query",
        count,
        median(rates[places.QUERY]),
        "tasks/s",
        peer="noop of ours",
        peer_value=median(rates[places.NOOP]),
        rounds={task: [round(rate) for rate in found] for task, found in rates.items()},
    )
