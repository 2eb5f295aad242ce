"""Who changed what, when and how: an append-only record, committed with the change itself."""
