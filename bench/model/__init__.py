"""`make model`: what 1 to 100 beats and 10 to 10,000 workers would do, from costs that are measured on this machine.

`costs` are the demands on each resource, `measure` finds them, `capacity` is the arithmetic, `page` tells it.
"""
