"""A beat that publishes nothing: claims a batch, waits for a line, claims until nothing is due, says what it took."""

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
    # What a process does once is not the beat's usual work.
    print(json.dumps({"event": "ready", "claimed": beat.fire()}), flush=True)
    sys.stdin.readline()
    began, ended, claimed, spent = time.time(), time.time(), 0, time.process_time()
    while count := beat.fire():
        claimed, ended = claimed + count, time.time()
    spent = time.process_time() - spent
    done = {"event": "done", "claimed": claimed, "began": began, "ended": ended, "cpu": spent}
    print(json.dumps(done), flush=True)
    # With the process its session would go, whose processor time is looked at now.
    sys.stdin.readline()
    beat.close()


main()
