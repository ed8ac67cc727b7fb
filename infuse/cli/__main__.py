"""`python -m infuse.cli` is `infuse`."""

from infuse.cli.app import app

app()
