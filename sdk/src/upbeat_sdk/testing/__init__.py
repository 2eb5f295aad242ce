"""A service in memory, for the tests of programs that use this package.

    fake = FakeUpbeat()

    @fake.task("reports.monthly")
    def monthly(month: str) -> int:
        return 12

    with fake.client() as client:
        assert client.tasks.run("reports.monthly", kwargs={"month": "2026-03"}).result() == 12
    assert fake.calls("run_task")[0].json == {"kwargs": {"month": "2026-03"}}

It has tasks, runs with their logs, and schedules, and answers as the service does: the package's own
suite runs against both. A run executes when it is first looked at. Schedules never fire by themselves.
Other operations, and failures, are told to it: `fake.answer("get_agent", blank(models.Agent) | {"name": "writer"})`,
`fake.fail("run_task", 503, times=2)`.
"""

from upbeat_sdk.testing._blank import blank
from upbeat_sdk.testing._fake import FakeUpbeat, NotFaked, Received

__all__ = ["FakeUpbeat", "NotFaked", "Received", "blank"]
