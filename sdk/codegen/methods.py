"""The source of the resources: one class for each, one method for each operation, typed and documented.

Sync and async differ in the names that they return and in one `await`; both only name the call, and
leave it to the client that they belong to.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from codegen.annotations import annotation, optional
from codegen.document import JSON, Schema, answer, class_name, page_item, resolved
from codegen.operations import IDEMPOTENCY_KEY, Operation

EVENTS = "text/event-stream"
FORM = "application/x-www-form-urlencoded"
IF_MATCH = "if-match"
# Written by hand: these can do something.
HANDLES = {"Run"}


@dataclass(frozen=True, slots=True)
class Flavour:
    """What the two forms of a resource call things."""

    prefix: str
    keyword: str
    wait: str
    page: str
    shell: str

    def handle(self, name: str) -> str:
        """The class that an answer of this schema becomes."""
        return f"{self.prefix}{name}" if name in HANDLES else f"models.{name}"


SYNC = Flavour("", "def", "", "Page", "SyncShell")
ASYNC = Flavour("Async", "async def", "await ", "AsyncPages", "AsyncShell")


def resource_module(header: str, document: Schema, operations: list[Operation], *, asynchronous: bool) -> str:
    """The source of all resources in one form."""
    flavour = ASYNC if asynchronous else SYNC
    grouped = [(name, list(each)) for name, each in groupby(operations, key=lambda each: each.resource)]
    parts = [
        f'{header}\n"""The resources of the {"async" if asynchronous else "sync"} client."""\n',
        _imports(flavour),
        *(_resource(document, name, methods, flavour) for name, methods in grouped),
        _attributes([name for name, _ in grouped], flavour),
    ]
    return "\n\n".join(parts)


def _imports(flavour: Flavour) -> str:
    return f"""
from collections.abc import Sequence
from datetime import date, datetime
from functools import cached_property
from typing import Any, Literal, Unpack
from uuid import UUID

from upbeat_sdk._call import Call, entity_tag, segment
from upbeat_sdk._events import {flavour.prefix}EventStream
from upbeat_sdk._generated import bodies, models
from upbeat_sdk._pages import {flavour.page}
from upbeat_sdk._resource import {flavour.prefix}Resource
from upbeat_sdk._runs import {flavour.prefix}Run
from upbeat_sdk._shell import {flavour.shell}
"""


def _resource(document: Schema, name: str, operations: list[Operation], flavour: Flavour) -> str:
    body = "\n\n".join(_method(document, each, flavour) for each in operations)
    title = sorted({tag for each in operations for tag in each.schema["tags"]})
    return (
        f'class {_class(name, flavour)}({flavour.prefix}Resource):\n    """{", ".join(title)}."""\n\n{body}'
    )


def _class(name: str, flavour: Flavour) -> str:
    return f"{flavour.prefix}{class_name(name)}Resource"


def _attributes(names: Iterable[str], flavour: Flavour) -> str:
    properties = "\n\n".join(
        f"    @cached_property\n    def {name}(self) -> {_class(name, flavour)}:\n"
        f'        """{_class(name, flavour)}."""\n'
        f"        return {_class(name, flavour)}(self)"
        for name in names
    )
    return (
        f"class {flavour.prefix}Resources({flavour.shell}):\n"
        f'    """The resources of a client, as its attributes."""\n\n{properties}\n'
    )


def _method(document: Schema, each: Operation, flavour: Flavour) -> str:
    parameters = each.schema.get("parameters", [])
    required, optionals, headers = [], [], []
    for parameter in parameters:
        kind, name = parameter["in"], _argument(parameter["name"])
        if kind == "path":
            continue
        if kind == "header":
            headers.append(parameter["name"])
            default = "int | str" if parameter["name"].lower() == IF_MATCH else "str | None"
            end = '"*"' if parameter["name"].lower() == IF_MATCH else "None"
            optionals.append(f"{name}: {default} = {end}")
        elif parameter.get("required"):
            required.append(f"{name}: {annotation(parameter['schema'])}")
        else:
            optionals.append(f"{name}: {optional(parameter['schema'])} = None")
    body = _body(document, each, {_argument(p["name"]) for p in parameters if p["in"] != "path"})
    arguments = ["self", *_path_arguments(parameters)]
    if required or optionals:
        arguments += ["*", *required, *optionals]
    if body is not None:
        arguments.append(f"**fields: Unpack[bodies.{body}]")
    keyword, returned, statement = _answered(document, each, flavour)
    call = ", ".join(_call_arguments(each, parameters, headers, body))
    text = f"{keyword} {each.method}({', '.join(arguments)}) -> {returned}:\n"
    lines = [*_docstring(each), f"call = Call({call})", statement]
    return "    " + text + "\n".join(f"        {line}" if line else "" for line in lines)


def _path_arguments(parameters: list[Schema]) -> list[str]:
    names = [f"{p['name']}: {annotation(p['schema'])}" for p in parameters if p["in"] == "path"]
    return [*names, "/"] if names else []


def _argument(name: str) -> str:
    return re.sub(r"[^0-9a-z]+", "_", name.lower())


def _body(document: Schema, each: Operation, taken: set[str]) -> str | None:
    """The name of the body's schema.

    Raises:
        ValueError: it is no object, or has a field with the name of another parameter.
    """
    content = each.schema.get("requestBody", {}).get("content", {})
    for schema in (media.get("schema", {}) for media in content.values()):
        choices = [choice for choice in schema.get("anyOf", [schema]) if choice.get("type") != "null"]
        if len(choices) != 1 or "$ref" not in choices[0]:
            raise ValueError(f"{each.id}: its body is no named object")
        fields = set(resolved(document, choices[0]).get("properties", ()))
        if both := taken & fields:
            raise ValueError(f"{each.id}: {both} are parameters and fields of its body")
        return str(choices[0]["$ref"].rsplit("/", 1)[-1])
    return None


def _call_arguments(
    each: Operation, parameters: list[Schema], headers: list[str], body: str | None
) -> Iterator[str]:
    path = each.path
    for parameter in parameters:
        if parameter["in"] == "path":
            name = parameter["name"]
            path = path.replace(f"{{{name}}}", f'{{segment("{name}", {name})}}')
    yield f'"{each.id}"'
    yield f'"{each.verb}"'
    yield f"f'{path}'" if "{" in path else f'"{path}"'
    query = [p["name"] for p in parameters if p["in"] == "query"]
    if query:
        yield "query={" + ", ".join(f'"{name}": {_argument(name)}' for name in query) + "}"
    plain = []
    for name in headers:
        if name.lower() == IDEMPOTENCY_KEY:
            yield f"keyed=True, idempotency_key={_argument(name)}"
        elif name.lower() == IF_MATCH:
            plain.append(f'"{name}": entity_tag({_argument(name)})')
        else:
            plain.append(f'"{name}": {_argument(name)}')
    if plain:
        yield f"headers={{{', '.join(plain)}}}"
    if body is not None:
        optional_body = not each.schema["requestBody"].get("required")
        kind = "form" if FORM in each.schema["requestBody"]["content"] else "body"
        yield f"{kind}=fields or None" if optional_body else f"{kind}=fields"
    if not each.schema.get("security"):
        yield "secured=False"


def _answered(document: Schema, each: Operation, flavour: Flavour) -> tuple[str, str, str]:
    """The keyword of the definition, what it returns, and its last statement."""
    media_type, schema = answer(each.schema)
    if schema is None:
        return flavour.keyword, "None", f"{flavour.wait}self._client.fetch_nothing(call)"
    if media_type == EVENTS:
        return "def", f"{flavour.prefix}EventStream", "return self._client.stream(call)"
    if media_type.startswith("text/"):
        return flavour.keyword, "str", f"return {flavour.wait}self._client.fetch_text(call)"
    if media_type != JSON or "$ref" not in schema:
        raise ValueError(f"{each.id}: its answer is no named object")
    item = page_item(document, schema)
    if item is not None and "cursor" in {p["name"] for p in each.schema.get("parameters", [])}:
        handle = flavour.handle(class_name(item["$ref"].rsplit("/", 1)[-1]))
        return "def", f"{flavour.page}[{handle}]", f"return self._client.page(call, {handle})"
    handle = flavour.handle(class_name(schema["$ref"].rsplit("/", 1)[-1]))
    return flavour.keyword, handle, f"return {flavour.wait}self._client.fetch(call, {handle})"


def _docstring(each: Operation) -> list[str]:
    text = each.schema["description"].strip().replace('"""', "'''")
    lines = [f'"""{text}'] if "\n" not in text else [f'"""{text.splitlines()[0]}', *text.splitlines()[1:]]
    described = [
        f"    {_argument(p['name']) if p['in'] != 'path' else p['name']}: {p['description']}"
        for p in each.schema.get("parameters", [])
        if p.get("description") and p["in"] != "header"
    ]
    if described:
        return [*lines, "", "Args:", *described, '"""']
    return [*lines[:-1], lines[-1] + '"""']
