"""Can the servers that the user named be reached, and used? Answered before anything is started."""

import psycopg
import redis
from sqlalchemy.exc import OperationalError

from app.db.engines import sync_engine
from app.db.migrate import Standing, current, head, standing
from app.errors import ConfigurationError
from app.settings import Settings


def names_database(settings: Settings) -> bool:
    """Whether DATABASE_URL is set; if not, the embedded server is meant."""
    return settings.database.url is not None and bool(settings.database.url.get_secret_value())


def names_broker(settings: Settings) -> bool:
    """Whether CELERY_BROKER_URL or REDIS_URL is set; if not, the embedded server is meant."""
    addresses = (settings.broker.celery_url, settings.broker.redis_url)
    return any(address is not None and address.get_secret_value() for address in addresses)


def reach_database(settings: Settings) -> None:
    """Log in to the server of DATABASE_URL.

    Raises:
        ConfigurationError: it does not answer, or refuses; the message holds no password.
    """
    url = settings.database.server_url()
    try:
        psycopg.connect(
            url.render_as_string(hide_password=False),
            connect_timeout=max(2, round(settings.database.connect_timeout)),
        ).close()
    except psycopg.OperationalError as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigurationError(
            f"PostgreSQL at {url.host}:{url.port or 5432} (DATABASE_URL) cannot be used: {reason}. Start it or"
            " correct the address; without DATABASE_URL an embedded server is started."
        ) from None


def reach_redis(settings: Settings) -> None:
    """Ping the broker.

    Raises:
        ConfigurationError: it does not answer, or refuses; the message holds no password.
    """
    seconds = settings.broker.socket_timeout
    remedy = "Start it or correct the address; without REDIS_URL an embedded server is started."
    try:
        client = redis.Redis.from_url(
            settings.broker.url(), socket_connect_timeout=seconds, socket_timeout=seconds
        )
    except ValueError as error:
        raise ConfigurationError(f"REDIS_URL is not an address ({error}). {remedy}") from None
    place = client.connection_pool.connection_kwargs
    where = place.get("path") or f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"
    with client:
        try:
            client.ping()
        except redis.RedisError as error:
            raise ConfigurationError(
                f"Redis at {where} (REDIS_URL) cannot be used: {str(error).rstrip('.')}. {remedy}"
            ) from None


def require_migrated(settings: Settings) -> None:
    """Look at the revision of the database.

    Raises:
        ConfigurationError: the database is missing, or behind this code.
    """
    name, remedy = settings.database.name, "Run `upbeat migrate` first."
    engine = sync_engine(settings.database, name="upbeat-start")
    try:
        with engine.connect() as connection:
            found, stands = current(connection), standing(connection)
    except OperationalError as error:
        raise ConfigurationError(f"The database {name} cannot be used. {remedy}") from error
    finally:
        engine.dispose()
    if stands is Standing.BEHIND:
        raise ConfigurationError(
            f"The database {name} is at revision {found or 'none'}, not {head()}. {remedy}"
        )
