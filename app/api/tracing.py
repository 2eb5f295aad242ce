"""A span for each request, when tracing is on."""

import importlib

from fastapi import FastAPI

from app.worker import tracing

# Asked for all the time, by machines.
LEFT_OUT = "livez,readyz,metrics"


def install(app: FastAPI) -> None:
    """Trace the requests of this application, if the OTEL_ variables ask for it.

    Raises:
        ConfigurationError: they ask for it, and it cannot be done.
    """
    if tracing.switch_on("upbeat-api"):
        fastapi = importlib.import_module("opentelemetry.instrumentation.fastapi")
        fastapi.FastAPIInstrumentor.instrument_app(
            app, excluded_urls=LEFT_OUT, exclude_spans=["send", "receive"]
        )
