"""What the package knows of an operation of the API."""

from typing import NamedTuple


class Operation(NamedTuple):
    """`client.<resource>.<method>` sends ``verb`` to ``path`` and expects ``status``."""

    resource: str
    method: str
    verb: str
    path: str
    status: int
