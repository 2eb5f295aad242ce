"""A beat that publishes nothing: waits for a line, claims until nothing is due, says how long it took."""

import json
import sys
import time

from app.db import sync_engine, sync_sessions
from app.scheduling.dispatch import Dispatcher
from app.settings import get_settings
from app.worker import app
from bench.beats.silence import Silence


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
