"""The only reader of the environment: frozen, one nested group per concern.

The variables that the user's description names keep their names (``DATABASE_URL``,
``CELERY_DATABASE_NAME``, ``REDIS_URL``, ``CELERY_BROKER_URL``); every other one starts with
``UPBEAT_`` and its group's name. Durations are seconds. ``.upbeat/env`` is read below the
environment: `make up` leaves the addresses of its own servers there, so that a `celery` or
`uvicorn` started by hand in the same checkout finds them. Below both, a variable may be a file of
its name, in /run/secrets (containers) or in systemd's folder of credentials.
"""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AliasChoices, BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

STATE_FOLDER = Path(".upbeat")
RUNTIME_ENV = STATE_FOLDER / "env"
CONTAINER_SECRETS = Path("/run/secrets")

Seconds = Annotated[float, Field(gt=0)]

# What documentation, images and habit suggest: no secret at all.
WELL_KNOWN = frozenset(
    [
        "admin",
        "changeme",
        "default",
        "guest",
        "letmein",
        "password",
        "postgres",
        "redis",
        "root",
        "secret",
        "test",
        "upbeat",
        "123456",
        "12345678",
    ]
)


def _group(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(
        env_prefix=prefix, env_file=RUNTIME_ENV, extra="ignore", frozen=True, populate_by_name=True
    )


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _secret_folders() -> list[Path]:
    """Where files named for variables may be, the strongest last."""
    folders = [CONTAINER_SECRETS, *map(Path, filter(None, [os.environ.get("CREDENTIALS_DIRECTORY")]))]
    return [folder for folder in folders if folder.is_dir()]


class Group(BaseSettings):
    """Settings of one concern: given, from the environment, from ``.upbeat/env``, from files of secrets."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The folders are looked for at each reading: they belong to the process, not to the import."""
        files = SecretsSettingsSource(settings_cls, secrets_dir=_secret_folders())
        return init_settings, env_settings, dotenv_settings, files


class DatabaseSettings(Group):
    """Where PostgreSQL is. ``url`` names the server, ``name`` the database on it."""

    model_config = _group("UPBEAT_DATABASE_")

    url: SecretStr | None = Field(None, validation_alias="DATABASE_URL")
    name: str = Field("celery_tasks", validation_alias="CELERY_DATABASE_NAME", pattern=r"^\w{1,63}$")
    pool_size: int = Field(10, ge=1)
    statement_timeout: Seconds = 30.0
    connect_timeout: Seconds = 5.0

    def server_url(self) -> "URL":
        """The address as given, for the one statement that creates the database."""
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

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

    def product_url(self) -> "URL":
        """The address of Upbeat's own database on that server."""
        return self.server_url().set(database=self.name)


class BrokerSettings(Group):
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


class ApiSettings(Group):
    """The HTTP service."""

    model_config = _group("UPBEAT_")

    port: int = Field(8000, ge=1, le=65535)
    url: str | None = Field(
        None, description="Where the command finds the service; this host's port without."
    )
    token: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("UPBEAT_TOKEN", "UPBEAT_API_KEY"),
        description="What the command calls the service with: an API key, or a session's token.",
    )
    max_body_bytes: int = Field(1_048_576, ge=1024)
    docs_enabled: bool = True
    graceful_shutdown: int = Field(5, ge=1)
    ready_beat_age: Seconds = 15.0
    embedded_beat: bool = Field(False, description="Run a beat inside each API process.")


class DeploymentSettings(Group):
    """Where this runs. In production every process refuses to start without what that needs."""

    model_config = _group("UPBEAT_")

    environment: Literal["development", "production"] = "development"
    public_url: str | None = Field(
        None, description="The address that browsers use, of the proxy that ends TLS: https://upbeat.example."
    )

    @property
    def production(self) -> bool:
        """Whether this is no place for leniency."""
        return self.environment == "production"


class AuthSettings(Group):
    """Login sessions, throttling, and the first administrator that `make up` creates."""

    model_config = _group("UPBEAT_")

    session_lifetime: Seconds = 12 * 3600.0
    session_idle: Seconds = 2 * 3600.0
    session_rotation: float = Field(
        0.05, gt=0, lt=1, description="Share of the lifetime after which a token is replaced."
    )
    session_grace: Seconds = 60.0
    key_age: float = Field(
        1.0, ge=0, description="Seconds for which an API key that was found valid is not looked up again."
    )
    login_attempts: int = Field(5, ge=1, description="Wrong passwords of one user before waiting begins.")
    login_attempts_per_address: int = Field(30, ge=1)
    login_wait: Seconds = 1.0
    login_wait_cap: Seconds = 900.0
    admin_username: str = Field("admin", min_length=1, max_length=150)
    admin_password: SecretStr | None = None


class RateSettings(Group):
    """How fast callers may be, counted in Redis. Notation of `limits`: `600/minute`; empty for no limit."""

    model_config = _group("UPBEAT_RATE_")

    limit: str = Field("30000/minute", description="Requests of one caller.")
    refused: str = Field("300/minute", description="Requests of one address without a valid credential.")
    timeout: Seconds = 0.1

    @field_validator("limit", "refused")
    @classmethod
    def _parses(cls, value: str) -> str:
        if value:
            from limits import parse

            parse(value)
        return value


class BeatSettings(Group):
    """One pass of a beat; the fault tests shorten these."""

    model_config = _group("UPBEAT_BEAT_")

    batch: int = Field(500, ge=1, le=5000)
    max_sleep: Seconds = 5.0
    redispatch_delay: Seconds = 30.0
    redispatch_cap: Seconds = 600.0
    sweep_every: Seconds = 5.0
    heartbeat_every: Seconds = 1.0


class WorkerSettings(Group):
    """Workers' leases and what a run may store."""

    model_config = _group("UPBEAT_WORKER_")

    lease: Seconds = 30.0
    lease_renewal: Seconds = 10.0
    watchdog: Seconds = Field(60.0, gt=0, description="A main loop, or a beat, that hangs for so long ends.")
    cancel_grace: Seconds = Field(10.0, gt=0, description="Between asking a run to stop and making it.")
    drain_timeout: Seconds = Field(
        30.0, gt=0, description="What runs get to end when their worker is stopped."
    )
    max_result_bytes: int = Field(262_144, ge=1024)


class TaskSettings(Group):
    """Where tasks are found, besides the `tasks.py` of each folder in `app/modules`."""

    model_config = _group("UPBEAT_TASK_")

    modules: str = Field("", description="Dotted names of further modules with tasks, separated by commas.")

    def names(self) -> tuple[str, ...]:
        """The dotted names, one by one."""
        return _items(self.modules)


class SecretSettings(Group):
    """What encrypts the secrets that are stored for others, such as agents' credentials."""

    model_config = _group("UPBEAT_SECRET_")

    keys: SecretStr | None = Field(
        None, description="Fernet keys, separated by commas, the newest first; older ones only decrypt."
    )

    def each(self) -> tuple[str, ...]:
        """The keys, one by one; none when none is set."""
        return _items("" if self.keys is None else self.keys.get_secret_value())


class OutboundSettings(Group):
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


class AlertSettings(Group):
    """When something is called wrong, and how long alerts are kept. The API process looks."""

    model_config = _group("UPBEAT_ALERT_")

    look_every: Seconds = 5.0
    beat_silent: Seconds = Field(30.0, gt=0, description="Without a pass of any beat.")
    queue_patience: Seconds = Field(60.0, gt=0, description="That runs wait in a queue without a consumer.")
    keep_days: int = Field(90, ge=1, description="Of closed alerts.")


class WebhookSettings(Group):
    """How webhooks are delivered. The API process delivers; where is bounded by `UPBEAT_OUTBOUND_ALLOW`."""

    model_config = _group("UPBEAT_WEBHOOK_")

    look_every: Seconds = 1.0
    timeout: Seconds = Field(10.0, gt=0, le=60, description="From connecting to the end of the answer.")
    attempts: int = Field(10, ge=1, le=50)
    retry_base: Seconds = Field(
        5.0, gt=0, description="Before the second attempt; four times as long each time."
    )
    retry_cap: Seconds = 6 * 3600.0
    at_once: int = Field(20, ge=1, le=200, description="Deliveries of one process at a time.")
    at_once_each: int = Field(4, ge=1, le=100, description="Of these, to one webhook.")
    rotation_grace: Seconds = Field(86_400.0, description="That a replaced secret signs too.")
    keep_days: int = Field(30, ge=1, description="Of facts and their deliveries.")


class ScheduleSettings(Group):
    """Where schedules are declared, besides the code."""

    model_config = _group("UPBEAT_SCHEDULES_")

    file: Path | None = Field(None, description="A YAML file of schedules; an empty one declares none.")


class LogSettings(Group):
    """How the three kinds of process write their logs, and what is stored with a run."""

    model_config = _group("UPBEAT_LOG_")

    level: str = "INFO"
    format: str = Field("console", pattern="^(console|json)$")
    file_bytes: int = Field(
        5_242_880,
        ge=1024,
        description="A log of `upbeat start` or `up` is rotated when it has so many bytes.",
    )
    file_backups: int = Field(3, ge=1, description="Rotated logs that are kept, as `worker.log.1` and so on.")
    runs: bool = Field(True, description="Store log records and output with the run that wrote them.")
    run_lines: int = Field(10_000, ge=1, description="Lines of one attempt that are stored.")
    run_bytes: int = Field(1_048_576, ge=1024, description="Bytes of one attempt that are stored.")
    flush_every: Seconds = 0.5
    redact: tuple[str, ...] = Field((), description="JSON list of regular expressions that are blacked out.")

    @field_validator("redact")
    @classmethod
    def _expressions(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for number, expression in enumerate(given, 1):
            try:
                re.compile(expression)
            except re.error:
                raise ValueError(f"expression {number} is not a regular expression") from None
        return given


class MetricsSettings(Group):
    """Prometheus metrics: a port of each worker and beat, and who may read the API's."""

    model_config = _group("UPBEAT_METRICS_")

    port: int | None = Field(None, ge=1, le=65535, description="Of this worker or beat; none by default.")
    host: str = "127.0.0.1"
    token: SecretStr | None = Field(
        None, description="Also opens the API's /metrics, as a bearer token; a login does without it."
    )


class TracingSettings(Group):
    """OpenTelemetry's own variables, of which only those that switch it on are read here."""

    model_config = _group("OTEL_")

    exporter_otlp_endpoint: str | None = None
    exporter_otlp_traces_endpoint: str | None = None
    traces_exporter: str | None = None
    sdk_disabled: bool = False

    @property
    def enabled(self) -> bool:
        """Whether spans are made and sent."""
        named = self.exporter_otlp_endpoint or self.exporter_otlp_traces_endpoint or self.traces_exporter
        return bool(named) and not self.sdk_disabled and self.traces_exporter != "none"


class FailpointSettings(Group):
    """Where the fault tests kill or freeze a process; nothing for anybody else."""

    model_config = _group("UPBEAT_")

    armed: str = Field("", validation_alias="UPBEAT_FAILPOINTS")


class Settings(BaseModel):
    """Everything that can be set, read once."""

    model_config = {"frozen": True}

    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    broker: BrokerSettings = Field(default_factory=BrokerSettings)
    api: ApiSettings = Field(default_factory=ApiSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    deployment: DeploymentSettings = Field(default_factory=DeploymentSettings)
    rate: RateSettings = Field(default_factory=RateSettings)
    beat: BeatSettings = Field(default_factory=BeatSettings)
    worker: WorkerSettings = Field(default_factory=WorkerSettings)
    task: TaskSettings = Field(default_factory=TaskSettings)
    schedules: ScheduleSettings = Field(default_factory=ScheduleSettings)
    secret: SecretSettings = Field(default_factory=SecretSettings)
    outbound: OutboundSettings = Field(default_factory=OutboundSettings)
    alert: AlertSettings = Field(default_factory=AlertSettings)
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    failpoints: FailpointSettings = Field(default_factory=FailpointSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)

    def require_production(self) -> None:
        """In production, insist on what that needs; elsewhere do nothing.

        Raises:
            ConfigurationError: something is missing; the message names all of it, and no value.
        """
        if not self.deployment.production:
            return
        lacking = [
            *_server_lacks("DATABASE_URL", self.database.url),
            *_server_lacks("REDIS_URL", self.broker.celery_url or self.broker.redis_url),
        ]
        if not (self.deployment.public_url or "").startswith("https://"):
            lacking.append("UPBEAT_PUBLIC_URL must be the https:// address of the proxy that ends TLS")
        if not self.secret.each():
            lacking.append("UPBEAT_SECRET_KEYS is not set, and encrypts the credentials of agents")
        given = self.auth.admin_password
        if given is not None and (len(given.get_secret_value()) < 12 or _is_well_known(given)):
            lacking.append("UPBEAT_ADMIN_PASSWORD must have 12 characters or more, and not be a usual one")
        if lacking:
            raise ConfigurationError(
                "This is production (UPBEAT_ENVIRONMENT), and it does not start like this: "
                f"{'; '.join(lacking)}."
            )


def _server_lacks(variable: str, url: SecretStr | None) -> list[str]:
    if url is None or not url.get_secret_value():
        return [f"{variable} is not set"]
    try:
        password = urlsplit(url.get_secret_value()).password
    except ValueError:
        return [f"{variable} is not an address"]
    if not password or _is_well_known(SecretStr(unquote(password))):
        return [f"{variable} must have a password, and not a usual one"]
    return []


def _is_well_known(password: SecretStr) -> bool:
    return password.get_secret_value().lower() in WELL_KNOWN


def _variable(title: str, place: tuple[int | str, ...]) -> str:
    """The environment's name of what is wrong in the group of this name."""
    (group,) = [each for each in Group.__subclasses__() if each.__name__ == title] or (None,)
    name = ".".join(str(part) for part in place)
    if group is None or name not in group.model_fields:
        return name or title  # an alias is the variable's own name; a rule between several names them itself
    return f"{group.model_config['env_prefix']}{name}".upper()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Read the environment once per process.

    Raises:
        ConfigurationError: a variable has a value that cannot be used; the message names it, and
            never repeats the value, which may be a secret.
    """
    try:
        settings = Settings()
    except SettingsError as error:
        raise ConfigurationError(f"{error}. It takes JSON; correct it and start again.") from None
    except ValidationError as error:
        wrong = "; ".join(
            f"{_variable(error.title, item['loc'])}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise ConfigurationError(f"{wrong}. Correct the variable and start again.") from None
    settings.require_production()
    return settings
