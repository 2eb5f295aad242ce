"""How large arguments may be, whoever gives them: they are read at each start and shown in lists."""

import json
from typing import Annotated, Any, Final

from pydantic import AfterValidator

MAX_ARGUMENTS: Final = 256 * 1024
MAX_DEPTH: Final = 64
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, default=str)


def bounded(value: Any) -> Any:
    """The value as it is.

    Raises:
        ValueError: as JSON it takes more than 256 KiB, or it is nested deeper than 64 levels.
    """
    if not value:
        return value
    todo: list[tuple[Any, int]] = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"must not be nested deeper than {MAX_DEPTH} levels")
        if isinstance(item, list | dict):
            todo.extend((part, depth + 1) for part in (item.values() if isinstance(item, dict) else item))
    size = len(_ENCODER.encode(value).encode(errors="replace"))
    if size > MAX_ARGUMENTS:
        raise ValueError(
            f"must not take more than {MAX_ARGUMENTS // 1024} KiB as JSON; pass a reference instead"
        )
    return value


Arguments = Annotated[list[Any], AfterValidator(bounded)]
NamedArguments = Annotated[dict[str, Any], AfterValidator(bounded)]
