"""What the package knows of an operation of the API."""

from typing import NamedTuple


class Operation(NamedTuple):
    """`client.<resource>.<method>` sends ``verb`` to ``path`` and expects ``status``; ``keyed`` ones carry a key."""

    resource: str
    method: str
    verb: str
    path: str
    status: int
    keyed: bool = False
