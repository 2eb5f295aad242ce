"""What PostgreSQL refuses because of the values it was given, as opposed to because of its own state."""

from sqlalchemy.exc import DBAPIError

# Cardinality, data, integrity, and what is too large for an index.
_OF_VALUES = ("21", "22", "23", "54")
# Also of a month that nobody has made yet, which is the fault of nobody's values.
_NO_PARTITION = "23514"


def refuses_values(error: DBAPIError) -> bool:
    """Whether the same would be refused again, whenever it is tried."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return not error.connection_invalidated and state.startswith(_OF_VALUES) and state != _NO_PARTITION
