"""A worker whose start or end is committed, while the reply to it is lost with the connection."""

from collections.abc import Iterator

import psycopg
import pytest

from app.settings import Settings
from support.calling import calling
from support.polling import eventually
from support.proxy import Proxy
from support.servers import Database, Servers
from support.stack import Stack
from support.tasks import instant, nap

PATIENCE = 20.0
# The names of prepared statements (`app.db.single`) begin so.
ALONE = b"alone_"


@pytest.fixture
def cable(stack: Stack, servers: Servers, settings: Settings) -> Iterator[Proxy]:
    """Between the database and a worker of one thread, which has started and ended a run before."""
    with Proxy(servers.postgres.port) as proxy, calling(settings):
        direct = stack.environment["DATABASE_URL"]
        through = direct.replace(f":{servers.postgres.port}/", f":{proxy.port}/")
        stack.worker("-P", "threads", "-c", "1", "--without-mingle", env={"DATABASE_URL": through})
        assert instant.delay("first").get(PATIENCE) == "first"
        yield proxy


def _lose_one(cable: Proxy, before: int) -> None:
    eventually(lambda: cable.lost_replies > before, PATIENCE, "a reply to be lost")
    cable.lose_replies(ALONE, 0, 1)


def test_a_start_whose_reply_was_lost_goes_on_and_one_whose_end_was_is_not_late(
    cable: Proxy, stack: Stack, database: Database
) -> None:
    before = len(stack.ledger.starts())
    cable.lose_replies(ALONE, 1, 1)
    result = nap.delay(1.0)
    _lose_one(cable, 0)
    eventually(lambda: len(stack.ledger.starts()) > before, PATIENCE, "the body to begin all the same")
    lost = cable.lost_replies
    cable.lose_replies(ALONE, 1, 1)
    _lose_one(cable, lost)
    assert result.get(PATIENCE) == 1.0
    assert [start.run for start in stack.ledger.starts()[before:]] == [result.id]
    assert instant.delay("next").get(PATIENCE) == "next"
    with psycopg.connect(database.url) as connection:
        found = connection.execute("SELECT state, attempt FROM celery_task_runs WHERE id = %s", [result.id])
        assert found.fetchall() == [("succeeded", 1)]
        assert connection.execute("SELECT count(*) FROM celery_task_late_outcomes").fetchone() == (0,)
