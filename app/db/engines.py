"""Engines and session makers: asyncpg for the API and task bodies, psycopg 3 for beat and worker.

Bookkeeping sessions ask for generic plans (partition pruning by parameter is as good there, and
planning eight partitions anew for each statement costs more than the statement) and set the
timeouts that keep a frozen process from holding claimed rows.

The makers are called by their modules' names: OpenTelemetry's instrumentation puts its own there.
"""

import sqlalchemy
from sqlalchemy import URL, Engine
from sqlalchemy.ext import asyncio as sqlalchemy_async
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from app.db import documents, freshness
from app.db.companions import UnitSession
from app.settings import DatabaseSettings

IDLE_IN_TRANSACTION_TIMEOUT = "5s"


def _server_options(settings: DatabaseSettings) -> dict[str, str]:
    return {
        "plan_cache_mode": "force_generic_plan",
        "statement_timeout": f"{int(settings.statement_timeout * 1000)}",
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT,
        "timezone": "UTC",
    }


def psycopg_arguments(settings: DatabaseSettings, name: str) -> dict[str, object]:
    """Connection arguments of a psycopg connection: timeouts, keepalives and the process's name."""
    return {
        "options": " ".join(f"-c {key}={value}" for key, value in _server_options(settings).items()),
        "application_name": name,
        "connect_timeout": max(1, round(settings.connect_timeout)),
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }


def sync_engine(settings: DatabaseSettings, *, name: str, pool_size: int = 2) -> Engine:
    """An engine for sync sessions; ``name`` appears in `pg_stat_activity`."""
    return sqlalchemy.create_engine(
        settings.product_url().set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        json_serializer=documents.written,
        pool_size=pool_size,
        # The connection of the last statement: it is warm, and what a thread committed it committed there.
        pool_use_lifo=True,
        max_overflow=2,
        pool_pre_ping=False,
        pool_recycle=1800,
        connect_args=psycopg_arguments(settings, name),
    )


def async_engine(settings: DatabaseSettings, *, name: str = "upbeat-api") -> AsyncEngine:
    """An engine for async sessions; it belongs to the event loop that first uses it.

    Whether a connection lives costs three round trips to ask, so `app.db.freshness` asks only if there is doubt.
    """
    engine = sqlalchemy_async.create_async_engine(
        settings.product_url().set(drivername="postgresql+asyncpg"),
        hide_parameters=True,
        json_serializer=documents.written,
        pool_size=settings.pool_size,
        max_overflow=settings.pool_size,
        # The connection of the last statement is warm, and has not been idle.
        pool_use_lifo=True,
        pool_recycle=1800,
        connect_args={
            "timeout": settings.connect_timeout,
            "server_settings": {"application_name": name, **_server_options(settings)},
        },
    )
    freshness.watch(engine)
    return engine


def sync_sessions(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


def async_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """As `sync_sessions`, for async callers; what accompanies the caller joins what they commit."""
    return async_sessionmaker(engine, expire_on_commit=False, sync_session_class=UnitSession)


def maintenance_engine(url: URL) -> Engine:
    """An autocommitting engine for statements that refuse a transaction (CREATE DATABASE)."""
    return sqlalchemy.create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        json_serializer=documents.written,
        isolation_level="AUTOCOMMIT",
        pool_size=1,
        connect_args={"connect_timeout": 5, "application_name": "upbeat-migrate"},
    )
