"""The ``ravine`` command."""

from ravine.cli.entry import main

__all__ = ["main"]
