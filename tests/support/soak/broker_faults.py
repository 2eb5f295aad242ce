"""What happens to Redis, and to the messages in it."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

import redis

from app.scheduling.messages import QUEUES
from support import rubbish
from support.soak.field import Field
from support.soak.kinds import kind


def _config(field: Field, longest: float, *broken: str, mended: str) -> bool:
    """One setting is ``broken[1]`` for a while."""
    name, value = broken
    with field.broker() as client:
        client.config_set(name, value)

    def mend() -> None:
        with field.broker() as again:
            again.config_set(name, mended)

    field.later(field.chance.uniform(0.2, longest), mend)
    return True


@kind("Redis killed and started empty", 0.3)
def killed(field: Field) -> bool:
    if not field.servers.is_running("redis"):
        return False
    field.servers.stop("redis", signal.SIGKILL)
    field.later(field.chance.uniform(0, 2), field.start_redis)
    return True


@kind("Redis frozen", 0.6)
def frozen(field: Field) -> bool:
    if not field.servers.is_running("redis"):
        return False
    pid = field.servers.pid("redis")
    os.kill(pid, signal.SIGSTOP)

    def thaw() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    field.later(field.chance.uniform(0.2, 3), thaw)
    return True


@kind("Redis loses everything (FLUSHALL)", 1.0)
def flushed(field: Field) -> bool:
    with field.broker() as client:
        client.flushall()
    return True


@kind("a queue is lost", 1.5)
def queue_lost(field: Field) -> bool:
    with field.broker() as client:
        client.delete(field.chance.choice(QUEUES))
    return True


@kind("clients are disconnected (CLIENT KILL)", 1.5)
def disconnected(field: Field) -> bool:
    with field.broker() as client:
        mine = client.client_id()
        ids = [each["id"] for each in client.client_list() if each["id"] != str(mine)]
        for each in field.chance.sample(ids, field.chance.randint(1, len(ids)) if ids else 0):
            client.client_kill_filter(_id=each)
    return bool(ids)


@kind("clients are paused (CLIENT PAUSE)", 1.0)
def paused(field: Field) -> bool:
    with field.broker() as client:
        client.client_pause(field.chance.randint(200, 3000), all=field.chance.random() < 0.5)
    return True


@kind("Redis has no memory left", 0.8)
def full(field: Field) -> bool:
    return _config(field, 2, "maxmemory", "1", mended="0")


@kind("Redis takes no writes, as in a failover", 0.8)
def no_replicas(field: Field) -> bool:
    return _config(field, 2, "min-replicas-to-write", "3", mended="0")


@kind("Redis takes no new clients", 0.6)
def no_clients(field: Field) -> bool:
    """Some of those that it has are sent away before."""
    admin = redis.Redis.from_url(field.trial.redis_url, socket_timeout=3)
    own = str(admin.client_id())
    for each in admin.client_list():
        if each["id"] != own and field.chance.random() < 0.3:
            admin.client_kill_filter(_id=each["id"])
    admin.config_set("maxclients", 1)

    def mend() -> None:
        try:
            admin.config_set("maxclients", 10000)
        except redis.RedisError:
            # Another fault has taken this connection away, and there is no way in.
            if field.servers.is_running("redis"):
                field.servers.stop("redis", signal.SIGKILL)
            field.start_redis()
        admin.close()

    field.later(field.chance.uniform(0.2, 1.5), mend)
    return True


@kind("all messages are doubled", 1.5)
def doubled(field: Field) -> bool:
    return _rewritten(field, lambda messages: messages * 2)


@kind("messages change their order", 1.5)
def shuffled(field: Field) -> bool:
    return _rewritten(field, lambda messages: field.chance.sample(messages, len(messages)))


@kind("a message is lost", 1.5)
def lost(field: Field) -> bool:
    return _rewritten(field, lambda messages: messages[1:])


def _rewritten(field: Field, change: Callable[[list[bytes]], list[bytes]]) -> bool:
    """Of the fullest queue, if there is one with messages."""
    with field.broker() as client:
        queue = max(QUEUES, key=client.llen)
        messages: list[bytes] = client.lrange(queue, 0, -1)  # type: ignore[assignment]
        if not messages:
            return False
        for message in messages:
            client.lrem(queue, 1, message)  # type: ignore[arg-type]
        if left := change(messages):
            client.rpush(queue, *left)
    return True


@kind("rubbish in the queues", 1.5)
def nonsense(field: Field) -> bool:
    known = list(rubbish.unreadable())
    with field.broker() as client:
        for each in field.chance.sample(known, 5):
            client.lpush(field.chance.choice(QUEUES), each.content)
    return True


@kind("messages of runs that have ended, or never were", 1.5)
def replayed(field: Field) -> bool:
    """Also with attempts and tasks that are not theirs."""
    with field.database() as connection:
        recent = connection.execute(
            "SELECT id, task, attempt FROM celery_task_runs ORDER BY id DESC LIMIT 40"
        ).fetchall()
    with field.broker() as client:
        for run_id, task, attempt in field.chance.sample(recent, min(len(recent), 8)):
            forged = rubbish.wake_up(
                field.chance.choice([run_id, uuid4()]),
                task=field.chance.choice([task, "support.nap"]),
                attempt=max(1, attempt + field.chance.randint(-1, 1)),
            )
            client.lpush(field.chance.choice(QUEUES), json.dumps(forged))
    return bool(recent)
