"""Loops that hang when a test wants it: `UPBEAT_TASK_MODULES=support.tasks,support.freezing`."""

import os
import time
from typing import Any

from celery import signals
from celery.worker.control import control_command

FOR_EVER = 600.0
BEAT_VARIABLE = "FREEZE_BEAT"


@control_command(name="freeze")
def freeze(state: Any) -> None:
    """Control commands run in the worker's main loop: this one never gives it back."""
    time.sleep(FOR_EVER)


@signals.beat_init.connect(weak=False)
def _freeze_beat(sender: Any, **_: Any) -> None:
    if os.environ.get(BEAT_VARIABLE):
        sender.scheduler.tick = lambda *_args, **_kwargs: time.sleep(FOR_EVER)
