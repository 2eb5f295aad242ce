"""The scheduling engine beside its peers, on durable settings of a fresh PostgreSQL and a fresh Redis.

At each size all contestants are filled first, and then take turns, so that a noisy minute of the
machine falls on all of them.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from bench import peers as environment
from bench.contestants import OURS, PEERS, contestant
from bench.engine import burst, claims, edit, floor, idle, plans, profile, sustained, two_beats
from bench.engine.field import Field
from support.servers import running_servers

# In the order of a run: `startup` and `memory` come with `idle`, since they are of the same process.
MEASURES = {
    "idle": idle.measure,
    "burst": burst.measure,
    "floor": floor.measure,
    "profile": profile.measure,
    "plans": plans.measure,
    "claims": claims.measure,
    "two-beats": two_beats.measure,
    "sustained": sustained.measure,
    # Last: what was edited is not as it was filled.
    "edit": edit.measure,
}
WITH_IDLE = ("startup", "memory")
# Those that are worth one size only, and which.
ONE_SIZE = {"two-beats": 1_000, "sustained": 100_000}
# Those that are worth the largest sizes only, from this on (or the largest wanted).
LARGE = {"claims": 100_000}
LARGEST_FOR_PEERS = 100_000
# A quick run has the fastest peer and the one that most people have; that two beats fire nothing twice, tests show.
QUICK_PEERS = ("django-celery-beat", "redbeat")
QUICK_SIZES = (5_000,)
NOT_QUICK = ("two-beats",)
DISTRIBUTIONS = {"celery-beat": "celery", "redbeat": "celery-redbeat"}


def run(
    *,
    quick: bool,
    sizes: Sequence[int] | None = None,
    peers: Sequence[str] | None = None,
    measures: Sequence[str] | None = None,
) -> None:
    """Measure what was chosen, by default everything."""
    names = list((QUICK_PEERS if quick else PEERS) if peers is None else peers)
    usual = [measure for measure in MEASURES if not (quick and measure in NOT_QUICK)]
    chosen = ["idle" if measure in WITH_IDLE else measure for measure in measures or usual]
    if names:
        environment.install()
        pinned = environment.versions()
        print({name: pinned[DISTRIBUTIONS.get(name, name)] for name in names}, file=sys.stderr)
    default = QUICK_SIZES if quick else (1_000, 10_000, 100_000, 1_000_000)
    wanted = tuple(sizes or default)
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} (other work blurs what follows)",
        file=sys.stderr,
    )
    with running_servers(quick=False) as servers:
        for size in sorted({*wanted, *_single_sizes(wanted, chosen)}):
            here = [m for m in MEASURES if m in chosen and _belongs(m, size, wanted)]
            rivals = [name for name in names if size <= LARGEST_FOR_PEERS]
            with ExitStack() as stack:
                print(f"filling {size} schedules: {[OURS, *rivals]}", file=sys.stderr)
                ours = stack.enter_context(contestant(OURS, servers, size))
                others = [stack.enter_context(contestant(name, servers, size)) for name in rivals]
                field = Field(size, ours, others, quick)
                for name in here:
                    print(f"{name} at {size}", file=sys.stderr)
                    MEASURES[name](field)


def _single_sizes(wanted: Sequence[int], chosen: Sequence[str]) -> set[int]:
    return {_single(measure, wanted) for measure in chosen if measure in ONE_SIZE}


def _single(measure: str, wanted: Sequence[int]) -> int:
    """The usual size, or the largest wanted one below it."""
    return max((size for size in wanted if size <= ONE_SIZE[measure]), default=min(wanted))


def _belongs(measure: str, size: int, wanted: Sequence[int]) -> bool:
    if measure in ONE_SIZE:
        return size == _single(measure, wanted)
    return size in wanted and size >= min(LARGE.get(measure, 0), max(wanted))


__all__ = ["MEASURES", "PEERS", "WITH_IDLE", "run"]
