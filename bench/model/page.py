"""`docs/model.md` and its plot."""

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt

from bench.model.capacity import Machine, beats_apart, beats_together, limit
from bench.model.costs import Costs, Point
from bench.page import machine

DOCS = Path(__file__).resolve().parents[2] / "docs"
BEATS = (1, 2, 3, 5, 10, 30, 100)
FEW = (1, 2, 3, 5, 10)
TOLD_BEATS = (1, 3, 10, 100)
WORKERS = (10, 100, 1000, 10_000)
MACHINES = (Machine(2), Machine(8), Machine(32), Machine(32, 8))
SLOTS = 8
SECONDS = 0.1
TIMES = [name for name in Costs.__dataclass_fields__ if name != "company"]
ADVICE = {
    "beats": "start another beat, on any host",
    "workers": "start more workers, or more slots",
    "PostgreSQL": "give PostgreSQL more cores; then split by team or tenant into databases of their own",
    "Redis": "spread the four queues over several Redis servers, or let fewer main processes have more slots",
}


def write(costs: Costs, points: Sequence[Point]) -> Path:
    """The page, from the costs and the points that they are held against."""
    _plot(costs, points)
    page = DOCS / "model.md"
    page.write_text("\n".join([*_head(costs, points), *_tables(costs)]) + "\n")
    return page


def _head(costs: Costs, points: Sequence[Point]) -> list[str]:
    cores = os.cpu_count() or 1
    micro = {name: f"{getattr(costs, name) * 1e6:,.1f}" for name in TIMES}
    return [
        "# Beyond one machine: a model",
        "",
        "Written by `make model`. The costs are measured; the rest is the arithmetic of queueing networks in",
        "`bench/model/capacity.py`: for beats, which go round and round, a closed network, solved exactly; for runs the",
        "utilisation law at 80 % of each resource.",
        "",
        *(f"- {each}" for each in machine()),
        "",
        "## Costs, in µs of processor time",
        "",
        "| | beat or worker | PostgreSQL | Redis | waiting |",
        "| --- | --: | --: | --: | --: |",
        (
            f"| a tick: claim, decide, insert, advance, publish | {micro['fire_beat']} | {micro['fire_postgres']} |"
            f" {micro['fire_redis']} | {micro['fire_wait']} |"
        ),
        f"| the same without publishing | {micro['claim_beat']} | {micro['fire_postgres']} | | {micro['fire_wait']} |",
        f"| a run: take, start, execute, finish | {micro['run_worker']} | {micro['run_postgres']} | {micro['run_redis']} | |",
        f"| a second of an idle worker | | {micro['idle_postgres']} | {micro['idle_redis']} | |",
        f"| a row that another beat holds | | {micro['skip']} | | |",
        "",
        f"Beats that work on one database slow each other: each, and its session, at {costs.company:.0%} of its speed alone, presumably",
        "for the same pages, indexes and log (beside processes that have nothing to do with it, a beat is not slower). That is",
        "what two beats were short of twice one; the model takes it for the same with any number from two on.",
        "",
        "## Held against measurements",
        "",
        f"Claims a second, without publishing, of beats that share {cores} cores with PostgreSQL, in turns on a machine that does",
        "nothing else. The model knows one beat and what the second one loses: the point with three is a prediction.",
        "",
        "| beats | measured (rounds) | model | error |",
        "| --: | --- | --: | --: |",
        *(_held_against(costs, point, cores) for point in points),
        "",
        "![claims a second, measured and predicted; ticks a second of many beats](model.svg)",
        "",
        "## Beats and PostgreSQL on hosts of their own",
        "",
        "Ticks a second that are claimed, decided, written and published, if nothing else is done.",
        "",
        "| PostgreSQL cores | " + " | ".join(f"{count} beat{'s' * (count > 1)}" for count in FEW) + " |",
        "| --: |" + " --: |" * len(FEW),
        *(
            f"| {host.postgres_cores} | "
            + " | ".join(f"{beats_apart(costs, count, host):,.0f}" for count in FEW)
            + " |"
            for host in MACHINES
            if host.redis_shards == 1
        ),
        "",
    ]


def _held_against(costs: Costs, point: Point, cores: int) -> str:
    predicted = _claims(costs, point.beats, cores)
    rounds = ", ".join(f"{each:,.0f}" for each in point.rounds)
    error = predicted / point.rate - 1
    return f"| {point.beats} | {point.rate:,.0f} ({rounds}) | {predicted:,.0f} | {error:+.0%} |"


def _claims(costs: Costs, beats: int, cores: int) -> float:
    return beats_together(costs, beats, cores)


def _tables(costs: Costs) -> list[str]:
    told = [
        f"## Ticks a second that are fired and run, tasks of {SECONDS * 1000:.0f} ms, workers of {SLOTS} slots",
        "",
        "Each host of its own; in brackets what limits it.",
        "",
        "| PostgreSQL cores | Redis servers | beats | "
        + " | ".join(f"{count:,} workers" for count in WORKERS)
        + " |",
        "| --: | --: | --: | " + " | ".join("---" for _ in WORKERS) + " |",
    ]
    seen: set[str] = set()
    for host in MACHINES:
        for beats in TOLD_BEATS:
            cells = []
            for workers in WORKERS:
                found = limit(costs, beats=beats, workers=workers, slots=SLOTS, seconds=SECONDS, machine=host)
                seen.add(found.by)
                cells.append(
                    f"{found.rate:,.0f} ({found.by})" if found.rate else f"none: idle workers fill {found.by}"
                )
            told.append(f"| {host.postgres_cores} | {host.redis_shards} | {beats} | {' | '.join(cells)} |")
    told += ["", "## What to do then", ""]
    told += [f"- Limited by **{by}**: {ADVICE[by]}." for by in ADVICE if by in seen]
    told += [
        f"- **Connections**: a worker holds about three, so {WORKERS[-1]:,} workers want {3 * WORKERS[-1]:,}. From about a",
        "  hundred workers on, put a pooler in transaction mode between (leases and bookkeeping are short transactions;",
        "  `LISTEN` needs a session, so beats and waiting callers connect directly), or run fewer workers with more slots.",
        "- **Idle workers**: each asks Redis and renews its lease all the time. Start thousands of them with",
        "  `--without-gossip --without-mingle`: what workers tell each other grows with the square of their number, and is",
        "  not in this model.",
        "- More beats than two or three are for availability, not for speed: each passes over the rows that others hold.",
        "",
        "## What this does not show",
        "",
        "Only beats that share one machine with PostgreSQL were measured. Everything else is arithmetic on costs that are taken",
        "for constant, however much is done at a time. Not in it are:",
        "",
        "- the network between hosts, which adds to the time of each round, not to what a resource can do;",
        "- the disk: what waits for it is a part of one measured time, and a slower one, or a replica that is waited for, costs",
        "  more;",
        "- locks and buffers of PostgreSQL beyond what two beats lose to each other, checkpoints, vacuuming, and a history that no",
        "  longer fits into memory;",
        "- bodies of tasks that use PostgreSQL or Redis themselves, stored logs, and the API.",
        "",
        "Take a figure for the order of magnitude at which something is full, and for what that is; then measure there.",
    ]
    return told


def _plot(costs: Costs, points: Sequence[Point]) -> None:
    cores = os.cpu_count() or 1
    figure, (near, far) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    counts = range(1, 7)
    near.plot(counts, [_claims(costs, count, cores) for count in counts], label="model")
    near.scatter(
        [point.beats for point in points for _ in point.rounds],
        [rate for point in points for rate in point.rounds],
        color="black",
        s=12,
        label="measured",
    )
    near.set(
        xlabel=f"beats on {cores} cores, with PostgreSQL",
        ylabel="claims a second",
        ylim=(0, None),
        title="Held against measurements",
    )
    for host in MACHINES:
        name = f"PostgreSQL {host.postgres_cores} cores, Redis × {host.redis_shards}"
        far.plot(BEATS, [beats_apart(costs, count, host) for count in BEATS], marker="o", label=name)
    far.set(
        xscale="log",
        yscale="log",
        xlabel="beats, each on a host of its own",
        ylabel="ticks a second, published",
        title="What the model says",
    )
    for axes in (near, far):
        axes.legend(fontsize="x-small")
    figure.savefig(DOCS / "model.svg", metadata={"Date": None})
    plt.close(figure)
