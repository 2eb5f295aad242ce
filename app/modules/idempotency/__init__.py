"""Repeating a request safely: what an `Idempotency-Key` did is stored with its effect, for a day."""
