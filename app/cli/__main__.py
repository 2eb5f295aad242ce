"""`python -m app.cli`: the command from a checkout, without an installation."""

from app.cli import main

main()
