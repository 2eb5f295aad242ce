"""Written by `make sdk` from `openapi.json`."""
