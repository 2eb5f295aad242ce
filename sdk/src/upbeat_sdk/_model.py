"""What all models of answers share."""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

SECRET = re.compile(r"(?:^|_)(?:secret|token|password|credential)$")
HIDDEN = "'**********'"


class _Hidden:
    def __repr__(self) -> str:
        return HIDDEN


class Model(BaseModel):
    """An answer. Fields that this version does not know are kept; secrets do not show in its repr."""

    # Built at first use: a program that imports the package uses few of its models.
    model_config = ConfigDict(extra="allow", defer_build=True, protected_namespaces=())

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            hide = name is not None and isinstance(value, str) and SECRET.search(name)
            yield name, _Hidden() if hide else value
