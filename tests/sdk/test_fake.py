"""The fake beyond what the suite of scenarios holds it to: what tests tell it, and what it tells them."""

import pytest

import upbeat_sdk
from upbeat_sdk import models
from upbeat_sdk._model import Model
from upbeat_sdk.testing import FakeUpbeat, NotFaked, blank


@pytest.fixture
def fake() -> FakeUpbeat:
    made = FakeUpbeat()

    @made.task("greet")
    def greet(name: str) -> str:
        print(f"greeting {name}")  # noqa: T201 - what a task prints is its log
        print("done")  # noqa: T201
        return f"Hello, {name}"

    return made


def test_it_keeps_what_it_was_asked(fake: FakeUpbeat) -> None:
    with fake.client() as client:
        client.tasks.run("greet", args=["you"])
        client.runs.list(limit=3)
    (run,) = fake.calls("run_task")
    assert (run.path, run.json) == ({"name": "greet"}, {"args": ["you"]})
    assert run.headers["Authorization"] == "Bearer fake-token"
    assert [each.operation for each in fake.calls()] == ["run_task", "list_runs"]
    assert fake.calls("list_runs")[0].query == {"limit": "3"}


def test_a_run_can_be_cancelled_until_it_is_looked_at(fake: FakeUpbeat) -> None:
    with fake.client() as client:
        cancelled = client.tasks.run("greet", args=["you"]).cancel(reason="changed my mind")
        assert (cancelled.state, cancelled.reason) == ("cancelled", "cancelled_by_user")
        with pytest.raises(upbeat_sdk.RunCancelled):
            cancelled.result()
        replayed = cancelled.replay(args=["me"])
        assert replayed.result() == "Hello, me"
        with pytest.raises(upbeat_sdk.Conflict):
            replayed.cancel()
    assert fake.calls("cancel_run")[0].json == {"force": False, "reason": "changed my mind"}


async def test_what_a_task_prints_is_its_log(fake: FakeUpbeat) -> None:
    with fake.client() as client:
        run = client.tasks.run("greet", args=["you"])
        assert [line.message for line in run.logs(follow=True)] == ["greeting you", "done"]
        assert [line.number for line in run.logs()] == [1, 2]
    async with fake.async_client() as other:
        again = await other.tasks.run("greet", args=["you"])
        assert [line.logger async for line in again.logs(follow=True)] == ["stdout", "stdout"]
        assert len([line async for line in again.logs()]) == 2


def test_failures_are_told_to_it(fake: FakeUpbeat) -> None:
    fake.fail("list_runs", 503, times=2, retry_after=0)
    with fake.client() as client:
        assert client.runs.list().items == []
        assert len(fake.calls("list_runs")) == 3
        fake.fail("list_runs", 403, detail="Not you.")
        with pytest.raises(upbeat_sdk.Forbidden, match="Not you"):
            client.runs.list()


def test_answers_are_told_to_it(fake: FakeUpbeat) -> None:
    agent = blank(models.Agent) | {"name": "writer"}
    fake.answer("list_agents", {"items": [agent], "next_cursor": None})
    with fake.client() as client:
        assert [each.name for each in client.agents.list()] == ["writer"]
        with pytest.raises(NotFaked, match=r"fake.answer\('get_agent', …\)"):
            client.agents.get("x")
    with pytest.raises(ValueError, match="no operation 'list_unicorns'"):
        fake.answer("list_unicorns", {})


def test_a_change_of_another_version_is_refused(fake: FakeUpbeat) -> None:
    with fake.client() as client:
        made = client.schedules.create(task_name="x", task_path="greet", task_crontab_minute="0")
        with pytest.raises(upbeat_sdk.PreconditionFailed):
            client.schedules.update(made.id, if_match=7, task_name="y")
        assert client.schedules.update(made.id, if_match=made.version, task_name="y").task_name == "y"


MODELS = [value for value in vars(models).values() if isinstance(value, type) and issubclass(value, Model)]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_blank_is_one_of_its_model(model: type[Model]) -> None:
    assert model.model_validate(blank(model))
