"""The ``ravine`` command."""

from ravine.cli.main import main

__all__ = ["main"]
