"""Which method of which resource an operation becomes.

The resource is the first segment of the path. A path that ends there is listed, created; one that
ends in a parameter is read, changed, deleted; any other ends in the method's name.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from codegen.document import Schema, operations

PREFIX = "/api/v1/"
IDEMPOTENCY_KEY = "idempotency-key"
COLLECTION = {"get": "list", "post": "create"}
ITEM = {"get": "get", "patch": "update", "put": "replace", "delete": "delete"}


@dataclass(frozen=True, slots=True)
class Naming:
    """What does not follow from paths."""

    resources: Mapping[str, str]
    methods: Mapping[str, str]
    left_out: Mapping[str, str]

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Naming":
        """From the tables of `naming.toml`."""
        return cls(table["resources"], table["methods"], table["left_out"])


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation with the names that it is called by."""

    id: str
    resource: str
    method: str
    verb: str
    path: str
    schema: Schema

    @property
    def keyed(self) -> bool:
        """Whether it creates work, and may be repeated under a key."""
        return any(each["name"].lower() == IDEMPOTENCY_KEY for each in self.schema.get("parameters", ()))


def named_operations(document: Schema, naming: Naming) -> list[Operation]:
    """All operations that the SDK has, by resource and in the document's order.

    Raises:
        ValueError: two would have one name.
    """
    found = [
        _named(path, verb, schema, naming)
        for path, verb, schema in operations(document)
        if schema["operationId"] not in naming.left_out
    ]
    taken: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in found:
        taken[each.resource, each.method].append(each.id)
    for (resource, method), ids in taken.items():
        if len(ids) > 1:
            both = " and ".join(ids)
            raise ValueError(f"{both} would both be {resource}.{method}: name one in sdk/codegen/naming.toml")
    return sorted(found, key=lambda each: each.resource)


def _named(path: str, verb: str, schema: Schema, naming: Naming) -> Operation:
    segments = path.removeprefix(PREFIX).strip("/").split("/")
    resource = naming.resources.get(segments[0], _identifier(segments[0]))
    method = naming.methods.get(schema["operationId"])
    if method is None:
        if len(segments) == 1:
            method = COLLECTION[verb]
        elif segments[-1].startswith("{"):
            method = ITEM[verb]
        else:
            method = _identifier(segments[-1])
    return Operation(schema["operationId"], resource, method, verb.upper(), path, schema)


def _identifier(segment: str) -> str:
    return segment.replace("-", "_").replace(".", "_")


def table_module(header: str, found: list[Operation]) -> str:
    """The source of the table that the package keeps of its operations."""
    rows = "".join(
        f'    "{each.id}": Operation("{each.resource}", "{each.method}", "{each.verb}", "{each.path}",'
        f" {_success(each)}{', keyed=True' if each.keyed else ''}),\n"
        for each in found
    )
    return (
        f'{header}\n"""The operations of the API, by their ids."""\n\n'
        "from upbeat_sdk._operation import Operation\n\n"
        f"OPERATIONS: dict[str, Operation] = {{\n{rows}}}\n"
    )


def _success(each: Operation) -> int:
    return next(int(status) for status in each.schema["responses"] if status.startswith("2"))
