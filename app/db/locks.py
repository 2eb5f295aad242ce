"""The keys of PostgreSQL's advisory locks, all in one place, so that no two of them are the same.

Limits by key have locks of their own, whose keys are hashes (`app.scheduling.limiting`).
"""

from typing import Final

# "upbeat" and a number.
MIGRATION: Final = 0x757062656174_0001
CLEANING: Final = 0x757062656174_0002
DECLARATIONS: Final = 0x757062656174_0003
TRANSFER: Final = 0x757062656174_0004
ALERTS: Final = 0x757062656174_0005
