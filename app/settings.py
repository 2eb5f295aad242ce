"""The only reader of the environment: frozen, one nested group per concern.

The variables that the user's description names keep their names (``DATABASE_URL``,
``CELERY_DATABASE_NAME``, ``REDIS_URL``, ``CELERY_BROKER_URL``); every other one starts with
``UPBEAT_`` and its group's name. Durations are seconds. ``.upbeat/env`` is read below the
environment: `make up` leaves the addresses of its own servers there, so that a `celery` or
`uvicorn` started by hand in the same checkout finds them.
"""

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.errors import ConfigurationError

STATE_FOLDER = Path(".upbeat")
RUNTIME_ENV = STATE_FOLDER / "env"

Seconds = Annotated[float, Field(gt=0)]


def _group(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(
        env_prefix=prefix, env_file=RUNTIME_ENV, extra="ignore", frozen=True, populate_by_name=True
    )


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


class DatabaseSettings(BaseSettings):
    """Where PostgreSQL is. ``url`` names the server, ``name`` the database on it."""

    model_config = _group("UPBEAT_DATABASE_")

    url: SecretStr | None = Field(None, validation_alias="DATABASE_URL")
    name: str = Field("celery_tasks", validation_alias="CELERY_DATABASE_NAME", pattern=r"^\w{1,63}$")
    pool_size: int = Field(10, ge=1)
    statement_timeout: Seconds = 30.0
    connect_timeout: Seconds = 5.0

    def server_url(self) -> URL:
        """The address as given, for the one statement that creates the database."""
        if self.url is None or not self.url.get_secret_value():
            raise ConfigurationError(
                "DATABASE_URL is not set. Start the embedded servers with `make up`, or set it to"
                " postgresql://USER:PASSWORD@HOST:5432/postgres."
            )
        try:
            url = make_url(self.url.get_secret_value())
        except ArgumentError as error:
            raise ConfigurationError(
                "DATABASE_URL is not an address. It looks like postgresql://USER:PASSWORD@HOST:5432/postgres."
            ) from error
        if url.get_backend_name() not in ("postgresql", "postgres"):
            raise ConfigurationError(
                f"DATABASE_URL names {url.get_backend_name()}; Upbeat keeps its data in PostgreSQL"
                " 14 or newer: postgresql://USER:PASSWORD@HOST:5432/postgres."
            )
        return url.set(drivername="postgresql")

    def product_url(self) -> URL:
        """The address of Upbeat's own database on that server."""
        return self.server_url().set(database=self.name)


class BrokerSettings(BaseSettings):
    """Where Redis is, and how long the publishing path waits for it."""

    model_config = _group("UPBEAT_BROKER_")

    redis_url: SecretStr | None = Field(None, validation_alias="REDIS_URL")
    celery_url: SecretStr | None = Field(None, validation_alias="CELERY_BROKER_URL")
    socket_timeout: Seconds = 2.0

    def url(self) -> str:
        """The broker's address: ``CELERY_BROKER_URL``, else ``REDIS_URL``."""
        chosen = self.celery_url or self.redis_url
        if chosen is None or not chosen.get_secret_value():
            raise ConfigurationError(
                "REDIS_URL is not set. Start the embedded servers with `make up`, or set it to"
                " redis://HOST:6379/0."
            )
        return chosen.get_secret_value()


class ApiSettings(BaseSettings):
    """The HTTP service."""

    model_config = _group("UPBEAT_")

    port: int = Field(8000, ge=1, le=65535)
    max_body_bytes: int = Field(1_048_576, ge=1024)
    docs_enabled: bool = True
    graceful_shutdown: int = Field(5, ge=1)
    ready_beat_age: Seconds = 15.0
    embedded_beat: bool = Field(False, description="Run a beat inside each API process.")


class AuthSettings(BaseSettings):
    """Login sessions, and the first administrator that `make up` creates."""

    model_config = _group("UPBEAT_")

    session_lifetime: Seconds = 12 * 3600.0
    admin_username: str = Field("admin", min_length=1, max_length=150)
    admin_password: SecretStr | None = None


class BeatSettings(BaseSettings):
    """One pass of a beat; the fault tests shorten these."""

    model_config = _group("UPBEAT_BEAT_")

    batch: int = Field(500, ge=1, le=5000)
    max_sleep: Seconds = 5.0
    redispatch_delay: Seconds = 30.0
    redispatch_cap: Seconds = 600.0
    sweep_every: Seconds = 5.0
    heartbeat_every: Seconds = 1.0


class WorkerSettings(BaseSettings):
    """Workers' leases and what a run may store."""

    model_config = _group("UPBEAT_WORKER_")

    lease: Seconds = 30.0
    lease_renewal: Seconds = 10.0
    watchdog: Seconds = 60.0
    cancel_grace: Seconds = Field(10.0, gt=0, description="Between asking a run to stop and making it.")
    drain: Seconds = Field(30.0, gt=0, description="What other runs get when the worker must be replaced.")
    max_result_bytes: int = Field(262_144, ge=1024)


class TaskSettings(BaseSettings):
    """Where tasks are found, besides the `tasks.py` of each folder in `app/modules`."""

    model_config = _group("UPBEAT_TASK_")

    modules: str = Field("", description="Dotted names of further modules with tasks, separated by commas.")

    def names(self) -> tuple[str, ...]:
        """The dotted names, one by one."""
        return _items(self.modules)


class SecretSettings(BaseSettings):
    """What encrypts the secrets that are stored for others, such as agents' credentials."""

    model_config = _group("UPBEAT_SECRET_")

    keys: SecretStr | None = Field(
        None, description="Fernet keys, separated by commas, the newest first; older ones only decrypt."
    )

    def each(self) -> tuple[str, ...]:
        """The keys, one by one; none when none is set."""
        return _items("" if self.keys is None else self.keys.get_secret_value())


class OutboundSettings(BaseSettings):
    """Where the service may connect on behalf of its users."""

    model_config = _group("UPBEAT_OUTBOUND_")

    allow: str = Field(
        "",
        description="Host names, addresses and CIDR ranges inside the network that agents may reach,"
        " separated by commas; public addresses always may be.",
    )

    def entries(self) -> tuple[str, ...]:
        """The names and ranges, one by one."""
        return _items(self.allow)


class ScheduleSettings(BaseSettings):
    """Where schedules are declared, besides the code."""

    model_config = _group("UPBEAT_SCHEDULES_")

    file: Path | None = Field(None, description="A YAML file of schedules; an empty one declares none.")


class LogSettings(BaseSettings):
    """How the three kinds of process write their logs."""

    model_config = _group("UPBEAT_LOG_")

    level: str = "INFO"
    format: str = Field("console", pattern="^(console|json)$")


class Settings(BaseModel):
    """Everything that can be set, read once."""

    model_config = {"frozen": True}

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    broker: BrokerSettings = Field(default_factory=BrokerSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    beat: BeatSettings = Field(default_factory=BeatSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    task: TaskSettings = Field(default_factory=TaskSettings)
    schedules: ScheduleSettings = Field(default_factory=ScheduleSettings)
    secret: SecretSettings = Field(default_factory=SecretSettings)
    outbound: OutboundSettings = Field(default_factory=OutboundSettings)
    log: LogSettings = Field(default_factory=LogSettings)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Read the environment once per process.

    Raises:
        ConfigurationError: a variable has a value that cannot be used; the message names it, and
            never repeats the value, which may be a secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"{error.title}: {wrong}. Correct the variable and start again.") from None
