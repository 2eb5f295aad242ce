"""Injections in a seeded order, at a seeded pace, each counted."""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from support.soak.field import AWAY, Field
from support.soak.kinds import Kind

STEP = 0.05
# A kind that cannot be done now is drawn again later; one that never can is said in the end.
MISSED_OFTEN = 30


@dataclass(frozen=True, slots=True)
class Injection:
    """``at`` is in seconds from the beginning."""

    number: int
    at: float
    kind: str


@dataclass
class Storm:
    """``pause`` is the mean time in seconds between two injections."""

    subject: Field
    kinds: dict[str, Kind]
    pause: float
    told: Callable[[Injection], None] = lambda injection: None
    done: list[Injection] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def rage(self, *, injections: int | None = None, seconds: float | None = None) -> None:
        """Until there were so many, or for so long; each kind at least once, if there is room for that."""
        end = math.inf if seconds is None else time.monotonic() + seconds
        target = math.inf if injections is None else len(self.done) + injections
        while time.monotonic() < end and len(self.done) < target:
            self._one()
            self._wait(min(self.subject.chance.expovariate(1 / self.pause), end - time.monotonic()))

    def counts(self) -> dict[str, int]:
        """How often each kind was done."""
        found = Counter(injection.kind for injection in self.done)
        return {name: found[name] for name in self.kinds}

    def _one(self) -> None:
        counts = Counter(injection.kind for injection in self.done)
        # What has been done least, for its weight, is due; chance decides among the nearest.
        names = [name for name in self.kinds if self.missed[name] < MISSED_OFTEN or counts[name]]
        ages = {
            name: (counts[name] + self.missed[name] / 3 + self.subject.chance.random())
            / self.kinds[name].weight
            for name in names
        }
        name = min(ages, key=ages.__getitem__)
        at = time.monotonic() - self.began
        try:
            happened = self.kinds[name].inject(self.subject)
        except AWAY:
            happened = False
        if happened:
            self.done.append(Injection(len(self.done) + 1, at, name))
            self.told(self.done[-1])
        else:
            self.missed[name] += 1

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            self.subject.undo_due()
            self.subject.mend()
            if time.monotonic() >= end:
                return
            time.sleep(min(STEP, max(0.0, end - time.monotonic())))
