"""Celery's configuration. Everything that may differ between installations comes from the settings."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from kombu import Queue

from app.errors import ConfigurationError
from app.scheduling.messages import DEFAULT_QUEUE, QUEUES
from app.settings import get_settings

MODULES = Path(__file__).resolve().parents[1] / "modules"


def task_modules() -> tuple[str, ...]:
    """The `tasks` module of every folder in `app/modules` that has one, and those that are set."""
    found = (f"app.modules.{file.parent.name}.tasks" for file in sorted(MODULES.glob("*/tasks.py")))
    return (*found, *get_settings().task.names())


def celery_configuration() -> dict[str, Any]:
    """Read when Celery first needs it, not at import."""
    settings = get_settings()
    configuration: dict[str, Any] = {
        "imports": task_modules(),
        # The message is a wake-up call that carries no data: JSON only, acknowledged before the run.
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "task_acks_late": False,
        "task_track_started": False,
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        "enable_utc": True,
        "timezone": "UTC",
        # Strict order: a worker takes from the first queue that has work, and takes nothing ahead.
        "task_queues": [Queue(name) for name in QUEUES],
        "task_default_queue": DEFAULT_QUEUE,
        "task_create_missing_queues": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        # `rate_limit` holds across all workers (app.scheduling.limiting); Celery's own holds in each.
        "worker_disable_rate_limits": True,
        "worker_consumer": "app.worker.consumer:Consumer",
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "broker_transport_options": {
            "queue_order_strategy": "priority",
            "priority_steps": [0],
            # Otherwise kombu keeps in Redis what a worker has taken, and gives it back an hour after the worker was
            # lost: two transactions a message. Ours is a wake-up, sent again from PostgreSQL, much sooner.
            "ack_emulation": False,
            "socket_timeout": settings.broker.socket_timeout,
            "socket_connect_timeout": settings.broker.socket_timeout,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        "broker_connection_retry": True,
        # Redis answers, but takes no writes for now: no memory left, a failover, a full disk.
        "broker_channel_error_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": settings.broker.socket_timeout,
        "beat_scheduler": "app.worker.beat:DatabaseScheduler",
        "beat_max_loop_interval": settings.beat.max_sleep,
        # History is kept by its own rules: no `celery.backend_cleanup`.
        "result_expires": None,
    }
    # Reading the catalogue needs no broker; connecting without one says what to set.
    with suppress(ConfigurationError):
        configuration["broker_url"] = settings.broker.url()
    return configuration
