"""All contestants at one size."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session, sessionmaker

from app.db import sync_engine, sync_sessions
from app.settings import Settings
from bench.contestants import Contestant, Ended
from bench.report import Figure, compare
from support.servers import settings_for

BENCH = "engine"


@dataclass(frozen=True)
class Field:
    """Ours and the peers, each filled with ``size`` schedules."""

    size: int
    ours: Contestant
    peers: Sequence[Contestant]
    quick: bool

    def compare(self, measure: str, unit: str, figure: Callable[[Contestant], Figure]) -> Figure:
        """Take the measure of each, one after the other, and report it; answers ours."""
        figures = self.each(figure)
        own = figures.pop(self.ours.name)
        if own is None:
            raise Ended(f"{measure} of ours failed")
        compare(BENCH, measure, self.size, unit, ours=own, peers=figures)
        return own

    def each(self, figure: Callable[[Contestant], Figure]) -> dict[str, Figure | None]:
        """The measure of each by name; None of a peer that failed, which is said."""
        found: dict[str, Figure | None] = {}
        for each in (self.ours, *self.peers):
            try:
                found[each.name] = figure(each)
            except Ended as error:
                print(f"{each.name} at {self.size}: {error}\n{each.log()}", file=sys.stderr)
                found[each.name] = None
        return found

    def settings(self) -> Settings:
        """Of a process of ours on this field's database and broker."""
        environment = self.ours.environment
        return settings_for(
            environment["DATABASE_URL"], environment["CELERY_DATABASE_NAME"], environment["REDIS_URL"]
        )

    def sessions(self) -> sessionmaker[Session]:
        return sync_sessions(sync_engine(self.settings().database, name="bench"))
