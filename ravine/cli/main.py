"""Entry point of the shell: exit 0 on success, 2 and one line on bad input, 130 when interrupted."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from cyclopts import CycloptsError

    from ravine.cli.commands import app

    try:
        status = app(
            list(sys.argv[1:] if arguments is None else arguments),
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        return _refuse(error)
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("RAVINE_TRACEBACK"):
            raise
        return _refuse(error)
    except KeyboardInterrupt:
        return 130
    return int(status or 0)


def _refuse(error: Exception) -> int:
    words = " ".join(str(error).split()) or type(error).__name__
    print(f"ravine: {words}", file=sys.stderr)
    return 2
