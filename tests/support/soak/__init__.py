"""A seeded mix of many kinds of fault on a running stack, under load, and the verdict about all that happened.

`field` is the stack with its cables, `kinds` the list of what can be done to it (the modules named `…_faults`),
`storm` does that in a seeded order, `load` uses the service meanwhile, `watch` measures, `judgement` decides, and
`session` is all of it.
"""

from support.soak import broker_faults, cable_faults, database_faults, process_faults, usage_faults
from support.soak.field import Field, running_field
from support.soak.judgement import Verdict
from support.soak.kinds import Kind, all_kinds
from support.soak.session import Outcome, soak
from support.soak.storm import Injection
from support.soak.watch import Sample, slope

PLACES = (process_faults, cable_faults, database_faults, broker_faults, usage_faults)
KINDS = all_kinds()

__all__ = [
    "KINDS",
    "PLACES",
    "Field",
    "Injection",
    "Kind",
    "Outcome",
    "Sample",
    "Verdict",
    "running_field",
    "slope",
    "soak",
]
