"""The beats that are compared, each a program of its own: see `bench.beats.__main__` for its verbs."""
