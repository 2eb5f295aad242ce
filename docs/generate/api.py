"""Every route of the API, from the committed OpenAPI document."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docs.generate.markdown import joined, table

Schema = Mapping[str, Any]


def page(document: Path) -> str:
    """The routes by tag, and the objects that they take and give."""
    api = json.loads(document.read_text())
    routes: dict[str, list[str]] = {
        tag["name"]: [f"## {tag['name']}", tag.get("description", "")] for tag in api["tags"]
    }
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            tag = route["tags"][0]
            routes.setdefault(tag, [f"## {tag}"]).extend(_route(method.upper(), path, route))
    schemas = sorted(api["components"]["schemas"].items())
    objects = [part for name, schema in schemas for part in _object(name, schema)]
    parts = [part for each in routes.values() for part in each]
    return joined(
        [f"# API {api['info']['version']}", api["info"]["description"], *parts, "## Objects", *objects]
    )


def _route(method: str, path: str, route: Schema) -> Iterator[str]:
    yield f"### {route.get('summary', path)}"
    yield f"`{method} {path}`" + _access(route)
    yield route.get("description", "")
    rows = [
        [f"`{each['name']}`", each["in"], _kind(each["schema"]), each.get("description", "")]
        for each in route.get("parameters", [])
    ]
    yield table(["parameter", "in", "kind", ""], rows)
    body = route.get("requestBody", {}).get("content", {})
    if body:
        yield "Body: " + ", ".join(_kind(content["schema"]) for content in body.values()) + "."
    yield table(
        ["status", "", "gives"], [_answer(code, each) for code, each in sorted(route["responses"].items())]
    )


def _access(route: Schema) -> str:
    access = route.get("x-access")
    return f": {access['role']}" if access else ""


def _answer(code: str, given: Schema) -> list[str]:
    kinds = {_kind(content.get("schema", {})) for content in given.get("content", {}).values()}
    return [code, given.get("description", ""), ", ".join(sorted(kinds))]


def _object(name: str, schema: Schema) -> Iterator[str]:
    yield f"### `{name}`"
    yield schema.get("description", "")
    if not schema.get("properties"):
        yield f"{_kind(schema)}."
        return
    required = schema.get("required", [])
    rows = [
        [f"`{field}`", _kind(each), "yes" if field in required else "", each.get("description", "")]
        for field, each in schema["properties"].items()
    ]
    yield table(["field", "kind", "required", ""], rows)


def _kind(schema: Schema) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(_kind(each) for each in schema[several]))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "any")
