"""A resource: the operations on one kind of thing, which belong to a client."""

from upbeat_sdk._shell import AsyncShell, SyncShell


class Resource:
    """Operations that wait for their answers."""

    def __init__(self, client: SyncShell) -> None:
        self._client = client


class AsyncResource:
    """Operations whose answers are awaited."""

    def __init__(self, client: AsyncShell) -> None:
        self._client = client
