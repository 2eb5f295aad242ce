"""Production refuses to start without what it needs, and says all of it, and none of the values."""

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from app.errors import ConfigurationError
from app.main import create_app
from app.settings import (
    AuthSettings,
    BrokerSettings,
    DatabaseSettings,
    DeploymentSettings,
    RateSettings,
    SecretSettings,
    Settings,
)

DATABASE = "postgresql://upbeat_api:correct-horse@db.internal/postgres"
REDIS = "redis://:correct-horse@redis.internal:6379/0"
KEYS = Fernet.generate_key().decode()
PUBLIC = "https://upbeat.example"


def production(
    database: str | None = DATABASE,
    redis: str | None = REDIS,
    public: str | None = PUBLIC,
    admin: str | None = None,
    keys: str | None = KEYS,
) -> Settings:
    return Settings(
        database=DatabaseSettings(DATABASE_URL=None if database is None else SecretStr(database)),
        broker=BrokerSettings(REDIS_URL=None if redis is None else SecretStr(redis)),
        deployment=DeploymentSettings(environment="production", public_url=public),
        auth=AuthSettings(admin_password=None if admin is None else SecretStr(admin)),
        secret=SecretSettings(keys=None if keys is None else SecretStr(keys)),
    )


def test_what_is_complete_starts() -> None:
    production().require_production()
    production(admin="correct horse battery").require_production()
    create_app(production())


def test_development_needs_nothing() -> None:
    Settings().require_production()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"database": None}, "DATABASE_URL"),
        ({"database": "postgresql://postgres@db/postgres"}, "DATABASE_URL"),
        ({"database": "postgresql://postgres:postgres@db/postgres"}, "DATABASE_URL"),
        ({"database": "postgresql://u:p%61ssword@db/postgres"}, "DATABASE_URL"),
        ({"redis": None}, "REDIS_URL"),
        ({"redis": "redis://redis:6379/0"}, "REDIS_URL"),
        ({"redis": "redis://:ChangeMe@redis:6379/0"}, "REDIS_URL"),
        ({"public": None}, "UPBEAT_PUBLIC_URL"),
        ({"public": "http://upbeat.example"}, "UPBEAT_PUBLIC_URL"),
        ({"keys": None}, "UPBEAT_SECRET_KEYS"),
        ({"admin": "admin"}, "UPBEAT_ADMIN_PASSWORD"),
        ({"admin": "short"}, "UPBEAT_ADMIN_PASSWORD"),
    ],
)
def test_what_is_missing_is_named(changed: dict[str, str | None], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_app(production(**changed))
    assert named in caught.value.detail
    assert caught.value.detail.count("UPBEAT_") + caught.value.detail.count("_URL") <= 3
    for value in changed.values():
        assert value is None or value not in caught.value.detail


def test_everything_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        production(None, None, None, "admin", None).require_production()
    for name in (
        "UPBEAT_SECRET_KEYS",
        "DATABASE_URL",
        "REDIS_URL",
        "UPBEAT_PUBLIC_URL",
        "UPBEAT_ADMIN_PASSWORD",
    ):
        assert name in caught.value.detail


def test_a_limit_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        RateSettings(limit="fast")
    assert RateSettings(limit="").limit == ""
