"""OpenTelemetry, switched on by its own variables: `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_TRACES_EXPORTER`.

Its packages are the optional extra `otel`, and are imported only when it is on.
"""

import importlib
from typing import Any

from celery import signals

from app.errors import ConfigurationError
from app.settings import get_settings


def switch_on(service: str) -> bool:
    """Make and send spans from now on, as ``service`` unless `OTEL_SERVICE_NAME` says otherwise; False if it is off.

    Raises:
        ConfigurationError: it is to be on, and cannot be.
    """
    if not get_settings().tracing.enabled:
        return False
    try:
        telemetry = importlib.import_module("app.worker.telemetry")
    except ImportError as error:
        raise ConfigurationError(
            "OTEL_ variables ask for traces, but OpenTelemetry is not installed:"
            " pip install 'upbeat[otel]', or set OTEL_SDK_DISABLED=true."
        ) from error
    telemetry.set_up(service)
    return True


def flush() -> None:
    """Send what has not been sent, for a bounded time."""
    if get_settings().tracing.enabled:
        importlib.import_module("app.worker.telemetry").flush()


@signals.celeryd_init.connect(weak=False)
def _in_worker(**_: Any) -> None:
    if switch_on("upbeat-worker"):
        importlib.import_module("app.worker.telemetry").instrument_runs()


@signals.worker_process_shutdown.connect(weak=False)
@signals.worker_shutdown.connect(weak=False)
def _leave(**_: Any) -> None:
    flush()
