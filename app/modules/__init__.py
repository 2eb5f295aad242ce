"""Business modules, one folder each: models, service, tasks, routes. A folder with a tasks.py is found by itself."""
