"""The Python types of path, query and header parameters, from their schemas."""

from codegen.document import Schema, class_name

SCALARS = {"integer": "int", "number": "float", "boolean": "bool", "string": "str", "null": "None"}
FORMATS = {"uuid": "UUID | str", "date-time": "datetime | str", "date": "date | str"}


def annotation(schema: Schema) -> str:
    """The type of a value that may be given; what is not understood may be anything."""
    if "anyOf" in schema:
        parts = [part for each in schema["anyOf"] for part in annotation(each).split(" | ")]
        return " | ".join(dict.fromkeys(parts))
    if "$ref" in schema:
        return f"bodies.{class_name(schema['$ref'].rsplit('/', 1)[-1])}"
    if "enum" in schema:
        return f"Literal[{', '.join(repr(choice) for choice in schema['enum'])}]"
    if schema.get("type") == "array":
        return f"Sequence[{annotation(schema.get('items', {}))}]"
    return FORMATS.get(schema.get("format", ""), SCALARS.get(schema.get("type", ""), "Any"))


def optional(schema: Schema) -> str:
    """As `annotation`, and None for a value that is not given."""
    parts = [part for part in annotation(schema).split(" | ") if part != "None"]
    return " | ".join([*parts, "None"])
