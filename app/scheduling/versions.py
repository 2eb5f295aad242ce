"""Nobody overwrites what they have not seen: who edits says which version they know."""

from collections.abc import Collection

from app.errors import PreconditionFailed


def require(current: int, expected: Collection[int] | None, what: str) -> None:
    """``expected`` are the versions that the editor has seen, None for whichever there is.

    Raises:
        PreconditionFailed: it is at another version.
    """
    if expected is not None and current not in expected:
        raise PreconditionFailed(
            f"The {what} is at version {current} now. Read it again, and repeat your change if it still fits."
        )
