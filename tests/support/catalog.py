"""What a schema promises to the code that was written for it, read from PostgreSQL, and which promises a later one breaks."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

_COLUMNS = text("""
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname <> 'alembic_version' AND a.attnum > 0 AND NOT a.attisdropped
""")

# What may refuse a row that an older writer makes.
_CONDITIONS = text("""
SELECT c.relname, pg_get_constraintdef(k.oid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND k.contype IN ('c', 'f', 'u', 'x')
UNION
SELECT c.relname, regexp_replace(pg_get_indexdef(i.indexrelid), 'INDEX \\S+ ON', 'INDEX ON')
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND i.indisunique
""")

_FUNCTIONS = text("""
SELECT p.oid::regprocedure::text FROM pg_proc p
WHERE p.pronamespace = 'public'::regnamespace AND p.prorettype <> 'trigger'::regtype
""")


@dataclass(frozen=True, slots=True)
class Column:
    """``required``: whoever inserts a row has to give a value."""

    type: str
    required: bool


@dataclass(frozen=True, slots=True)
class Catalog:
    """Columns and conditions by table, and the functions that can be called."""

    columns: Mapping[str, Mapping[str, Column]]
    conditions: Mapping[str, frozenset[str]]
    functions: frozenset[str]


def read(connection: Connection) -> Catalog:
    """The schema as it is."""
    columns: dict[str, dict[str, Column]] = {}
    for table, name, kind, required in connection.execute(_COLUMNS):
        columns.setdefault(table, {})[name] = Column(kind, required)
    conditions: dict[str, set[str]] = {table: set() for table in columns}
    for table, condition in connection.execute(_CONDITIONS):
        conditions.setdefault(table, set()).add(condition)
    return Catalog(
        columns,
        {table: frozenset(each) for table, each in conditions.items()},
        frozenset(connection.scalars(_FUNCTIONS)),
    )


def broken(before: Catalog, after: Catalog) -> list[str]:
    """What code that reads and writes ``before`` would miss or be refused in ``after``."""
    found = [f"{name} is gone" for name in sorted(before.functions - after.functions)]
    for table, columns in before.columns.items():
        if table not in after.columns:
            found.append(f"{table} is gone")
            continue
        found += _broken_columns(table, columns, after.columns[table])
        added = after.conditions.get(table, frozenset()) - before.conditions.get(table, frozenset())
        found += [f"{table} has a new condition: {condition}" for condition in sorted(added)]
    return found


def _broken_columns(table: str, before: Mapping[str, Column], after: Mapping[str, Column]) -> list[str]:
    found = []
    for name, column in before.items():
        if name not in after:
            found.append(f"{table}.{name} is gone")
        elif after[name].type != column.type:
            found.append(f"{table}.{name} is {after[name].type}, was {column.type}")
    required = [name for name, column in after.items() if column.required]
    return found + [
        f"{table}.{name} has to be given"
        for name in required
        if name not in before or not before[name].required
    ]
