"""The counts of messages that started nothing, kept in the broker."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import redis
from billiard.exceptions import SoftTimeLimitExceeded

from app.cli.embedded import LOOPBACK, free_port
from app.scheduling.messages import BrokerUnavailable
from app.settings import BrokerSettings, Settings
from app.worker import celery_app, counters
from support.calling import calling
from support.polling import eventually


@pytest.fixture(autouse=True)
def broker(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        client.delete(counters.KEY)
        yield client


def test_threads_count_each_message_once(settings: Settings) -> None:
    with calling(settings), ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: counters.refuse(f"problem {number % 2}"), range(400)))
        assert counters.read() == {"refused:problem 0": 200, "refused:problem 1": 200}


def test_what_is_counted_while_the_broker_is_away_is_added_later(
    settings: Settings, broker: redis.Redis
) -> None:
    away = BrokerSettings(REDIS_URL=f"redis://{LOOPBACK}:{free_port()}/0")
    with calling(settings.model_copy(update={"broker": away})):
        counters.refuse("no such thing")
        counters.nothing_to_start("a run")
    assert broker.hgetall(counters.KEY) == {}
    with calling(settings):
        eventually(_broker_answers, 10, "the broker to be tried again")
        counters.refuse("no such thing")
        counters.nothing_to_start("another run")
        assert counters.read() == {"refused:no such thing": 2, "suppressed": 2}


def test_a_soft_limit_is_not_taken_for_an_outage(settings: Settings) -> None:
    def interrupted(_: redis.Redis) -> None:
        raise SoftTimeLimitExceeded

    with calling(settings):
        with pytest.raises(SoftTimeLimitExceeded):
            celery_app.broker_client.use(interrupted)
        assert celery_app.broker_client.use(lambda client: client.ping())


def _broker_answers() -> bool:
    with suppress(BrokerUnavailable):
        counters.read()
        return True
    return False
