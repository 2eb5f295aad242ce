"""The OpenAPI document, cut into what answers say and what bodies may hold.

Both become OpenAPI documents of their own, from which datamodel-code-generator writes models and
typed dictionaries. What a newer server may add must not break an older client: enumerations in
answers are open. What is sent is typed strictly, and takes objects as well as their text.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

Schema = dict[str, Any]
METHODS = ("get", "post", "put", "patch", "delete")
REFERENCE = "#/components/schemas/"
ANSWER_ROOTS = ("Problem",)
# The service holds these; the SDK's types do not repeat them.
CONSTRAINTS = frozenset(
    {
        *("pattern", "minLength", "maxLength", "minItems", "maxItems", "multipleOf"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    }
)
JSON = "application/json"


def named(reference: str) -> str:
    """The schema's name as it stands at the end of a reference, in Python's spelling."""
    return class_name(reference.removeprefix(REFERENCE))


def class_name(name: str) -> str:
    """`Body_login` is BodyLogin."""
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^0-9A-Za-z]+", name))


def spelled(document: Schema) -> Schema:
    """The document with its schemas renamed to class names, and enumerations where they are used."""
    schemas = {class_name(name): schema for name, schema in document["components"]["schemas"].items()}

    def change(schema: Schema) -> Schema:
        if not isinstance(schema.get("$ref"), str):
            return schema
        name = named(schema["$ref"])
        if "enum" in schemas[name]:
            return {**schemas[name], **{key: value for key, value in schema.items() if key != "$ref"}}
        return {**schema, "$ref": REFERENCE + name}

    found: Schema = _mapped(document, change)
    renamed = {class_name(name): schema for name, schema in found["components"]["schemas"].items()}
    found["components"]["schemas"] = renamed
    return found


def operations(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    """Path, method and operation, in the document's order."""
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield path, method, methods[method]


def answers(document: Schema) -> Schema:
    """What can be received; a page is not a model of its own, its items are."""
    roots = [name for _, _, operation in operations(document) for name in _answered(document, operation)]
    return _part(document, [*ANSWER_ROOTS, *roots], _opened)


def bodies(document: Schema) -> Schema:
    """What can be sent, in bodies and in queries."""
    roots: list[str] = []
    for _, _, operation in operations(document):
        roots += _references(operation.get("requestBody", {}))
        roots += _references(operation.get("parameters", []))
    return _part(document, roots, _widened)


def page_item(document: Schema, schema: Schema) -> Schema | None:
    """The schema of a page's items; None when it is no page."""
    page = resolved(document, schema)
    if set(page.get("properties", ())) != {"items", "next_cursor"}:
        return None
    item: Schema = page["properties"]["items"]["items"]
    return item


def resolved(document: Schema, schema: Schema) -> Schema:
    """The schema that a reference leads to."""
    if "$ref" not in schema:
        return schema
    found: Schema = document["components"]["schemas"][named(schema["$ref"])]
    return found


def answer(operation: Schema) -> tuple[str, Schema | None]:
    """Media type and schema of what an operation gives when it succeeds; ("", None) for nothing."""
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            for media_type, content in response.get("content", {}).items():
                return media_type, content.get("schema", {})
    return "", None


def _answered(document: Schema, operation: Schema) -> Iterator[str]:
    media_type, schema = answer(operation)
    if media_type == JSON and schema is not None:
        yield from _references(page_item(document, schema) or schema)


def _part(document: Schema, roots: Iterable[str], change: Callable[[Schema], Schema]) -> Schema:
    schemas = document["components"]["schemas"]
    needed: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += _references(schemas[name])
    kept = {name: schemas[name] for name in sorted(needed)}
    return {
        "openapi": document["openapi"],
        "info": document["info"],
        "paths": {},
        "components": {"schemas": {name: _changed(schema, change) for name, schema in kept.items()}},
    }


def _changed(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """The schema with ``change`` applied to the schemas of its properties, at any depth."""
    found = deepcopy(schema)
    found.pop("examples", None)
    if "properties" in found:
        found["properties"] = {
            name: _mapped(inner, lambda each: change(_plain(each)))
            for name, inner in found["properties"].items()
        }
    return found


def _plain(schema: Schema) -> Schema:
    dropped = CONSTRAINTS | {"title", "examples"}
    # A constraint is no object; a property may well have the name of one.
    return {key: value for key, value in schema.items() if key not in dropped or isinstance(value, dict)}


def _opened(schema: Schema) -> Schema:
    """An enumeration that takes any other text too; a constant may become one."""
    if schema.get("type") == "string" and ("enum" in schema or "const" in schema):
        choices = schema.get("enum", [schema.get("const")])
        return _either(schema, {"type": "string", "enum": choices}, {"type": "string"})
    return schema


def _widened(schema: Schema) -> Schema:
    """An id or an instant, or its text."""
    if schema.get("type") == "string" and schema.get("format") in ("uuid", "date-time", "date"):
        return _either(schema, {"type": "string", "format": schema["format"]}, {"type": "string"})
    return schema


def _either(schema: Schema, *choices: Schema) -> Schema:
    kept = {key: value for key, value in schema.items() if key in ("description", "default")}
    return {**kept, "anyOf": list(choices)}


def _mapped(value: Any, change: Callable[[Schema], Schema]) -> Any:
    """``change`` applied to each object in a JSON value, the innermost first."""
    if isinstance(value, dict):
        return change({key: _mapped(inner, change) for key, inner in value.items()})
    if isinstance(value, list):
        return [_mapped(inner, change) for inner in value]
    return value


def _references(value: Any) -> list[str]:
    """The names of the schemas that a JSON value refers to."""
    if isinstance(value, dict):
        own = [named(value["$ref"])] if isinstance(value.get("$ref"), str) else []
        return own + [name for inner in value.values() for name in _references(inner)]
    if isinstance(value, list):
        return [name for inner in value for name in _references(inner)]
    return []
