"""Writes `src/upbeat_sdk/_generated` from `openapi.json`: `make sdk` (a tool of development, not part of the package).

document     what the document says, put as models of answers and typed dictionaries of bodies
operations   its operations, named as methods of resources; `naming.toml` has the exceptions
annotations  types of path and query parameters
methods      the source of the resources
"""
