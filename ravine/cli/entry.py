"""Entry point of the shell: exit 0 on success, 2 and one line on bad input, 130 when interrupted."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from ravine._check import one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from cyclopts import CycloptsError

    from ravine.cli.commands import app

    try:
        with warnings.catch_warnings():
            # the commands compare the names of columns themselves
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
            status = app(
                list(sys.argv[1:] if arguments is None else arguments),
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
        sys.stdout.flush()
    except CycloptsError as error:
        return _refuse(f"{str(error).strip().rstrip('.?')}; see ravine --help.")
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        if os.environ.get("RAVINE_TRACEBACK"):
            raise
        return _refuse(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        return 130
    return int(status or 0)


def _refuse(words: str) -> int:
    print(f"ravine: {one_line(words)}", file=sys.stderr)
    return 2
