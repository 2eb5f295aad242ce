"""`noop`: tasks that do nothing, in two prefork children, with their outcomes kept."""

from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.chores import places
from bench.report import report
from bench.worker.crew import Crew, ours, stock
from support.servers import Servers

PEERS = ("celery-redis-backend", "celery-database-backend", "celery-no-results")
WARM = 300


def measure(servers: Servers, folder: Path, *, quick: bool) -> None:
    """All workers stand ready, and take turns."""
    count, rounds = (1_000, 2) if quick else (4_000, 5)
    with ExitStack() as stack:
        crews = [stack.enter_context(ours(servers, folder, "-c", "2"))]
        crews += [stack.enter_context(stock(name, servers, folder, "-c", "2")) for name in PEERS]
        rates, cpu = take_turns(crews, count, rounds)
    own = median(rates["upbeat"])
    for name in PEERS:
        report(
            "worker",
            "noop",
            count,
            own,
            "tasks/s",
            peer=name,
            peer_value=median(rates[name]),
            rounds={key: [round(rate) for rate in rates[key]] for key in ("upbeat", name)},
            cpu=cpu["upbeat"],
            peer_cpu=cpu[name],
        )


def take_turns(
    crews: list[Crew], count: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, int]]]:
    """Rates by name, and microseconds of processor time a task."""
    rates: dict[str, list[float]] = {crew.name: [] for crew in crews}
    for crew in crews:
        crew.rate(places.NOOP, WARM)
    for _ in range(rounds):
        for crew in crews:
            rates[crew.name].append(crew.rate(places.NOOP, count))
    return rates, {crew.name: crew.cpu for crew in crews}
