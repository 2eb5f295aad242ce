"""Questions to the living workers, over Celery's own remote control: who answers, and what."""

from collections.abc import Sequence
from typing import Any

from celery import current_app
from kombu.exceptions import OperationalError

from app.scheduling.messages import BrokerUnavailable

QUESTIONS = ("ping", "registered", "stats", "reserved")


def ask(question: str, *, seconds: float = 1.0, of: Sequence[str] | None = None) -> dict[str, Any]:
    """The answers by the workers' names, of all (of those named) that answer within ``seconds``; one of `QUESTIONS`.

    Raises:
        BrokerUnavailable: nobody can be asked.
    """
    try:
        # Celery's own connection would be tried for a long time.
        current_app.publisher.ping()
        answers = getattr(current_app.control.inspect(timeout=seconds, destination=of), question)()
    except (OperationalError, OSError) as error:
        raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error
    return dict(answers or {})
