"""Side by side with the peers: ``python benchmarks/run.py [name ...] [--quick]``; the names are in ``NAMES``.

Every contender gets the same data, start and work, and they take turns. Ratios are what counts; seconds depend on
the machine and on who else is using it. ``benchmarks/imputation.py``, which
compares errors and not speed, stands by itself.
"""

from __future__ import annotations

import argparse
import importlib

from common import FULL, QUICK

NAMES = (
    *("vae", "estimators", "convolutions", "rbm", "forward_forward", "mixture"),
    *("factor_analysis", "startup", "answers", "compare"),
)


def main() -> None:
    """Run the benchmarks that were named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="name", help="which to run; all when none is named")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: to see that it runs")
    chosen = parser.parse_args()
    for name in set(chosen.names) - set(NAMES):
        parser.error(f"no benchmark is called {name}; there are {', '.join(NAMES)}.")
    for name in chosen.names or NAMES:
        importlib.import_module(name).main(QUICK if chosen.quick else FULL)


if __name__ == "__main__":
    main()
