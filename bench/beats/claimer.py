"""A beat that publishes nothing: waits for a line, claims until nothing is due, says how long it took."""

import json
import sys
import time
from collections.abc import Sequence

from app.db import sync_engine, sync_sessions
from app.scheduling.dispatch import Dispatcher
from app.scheduling.messages import RunMessage, Survey
from app.settings import get_settings
from app.worker import app


class Silence:
    """A publisher that sends nothing."""

    def publish(self, messages: Sequence[RunMessage]) -> None:
        """Nothing."""

    def survey(self) -> Survey:
        """Nothing is lost."""
        return Survey({}, "silence")


def main() -> None:
    settings = get_settings()
    sessions = sync_sessions(sync_engine(settings.database, name="bench-claimer"))
    beat = Dispatcher(sessions, Silence(), app.catalogue(), settings, name="bench")
    with sessions() as session:
        session.connection()
    print(json.dumps({"event": "ready"}), flush=True)
    sys.stdin.readline()
    began, ended, claimed = time.time(), time.time(), 0
    while count := beat.fire():
        claimed, ended = claimed + count, time.time()
    beat.close()
    print(json.dumps({"event": "done", "claimed": claimed, "began": began, "ended": ended}), flush=True)


main()
