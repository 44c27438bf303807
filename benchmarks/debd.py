"""How well restricted Boltzmann machines fit tables of bits: ``python benchmarks/debd.py [set ...] [--quick]``.

Seven sets of Lowd & Davis 2010 and Van Haaren & Davis 2012, with their rows to learn from, to choose by and to test:
the mean log-likelihood of the test rows, by `ravine.compare`. log Z of a machine is annealed, so that its number is an
upper bound, with the standard error of log Z; `RAISE` gives the lower bound beside it. Sixteen columns can be listed:
the number of nltcs is exact. Step size, number of units and decay were chosen by the rows to choose by.

The sets are read from the folder that the environment variable RAVINE_DATA names. Each is kept in ``results/debd/``
when it is done, and ``results/debd.md`` is written from all that are there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import ravine as rv
from ravine._spell import spell
from ravine._tree import Linear
from ravine.data import load_dataset
from ravine.evidence import AIS, Normalised
from ravine.recipes.rbm import RBM
from ravine.rules import Persistent

RESULTS = Path(__file__).parent / "results"
OTHERS = ("chow-liu", "independent")
# trees of Chow & Liu that others have fitted, in nats: the report of N. A. Khargonkar (2019, kninad/clt-mlproj), and
# for pumsb_star that of N. Baker (ndbaker1/CS6375-Machine-Learning, project 4); neither was refereed
PUBLISHED = {
    "nltcs": -6.75904,
    "plants": -16.5241,
    "dna": -87.7347,
    "baudio": -44.3749,
    "bnetflix": -60.2503,
    "accidents": -33.1881,
    "pumsb_star": -30.8070,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "nltcs": {"hidden": 100, "steps": 30_000, "rate": Linear(0.2, 0.0, 30_000.0), "evidence": Normalised()},
    "plants": {"hidden": 200},
    "dna": {"hidden": 200, "decay": 0.01, "steps": 10_000, "rate": Linear(0.1, 0.0, 10_000.0)},
    "baudio": {"hidden": 100, "decay": 0.001},
    "bnetflix": {"hidden": 100, "decay": 0.001},
    "accidents": {"hidden": 200, "rate": Linear(0.2, 0.0, 20_000.0)},
    "pumsb_star": {"hidden": 200, "rate": Linear(0.2, 0.0, 20_000.0)},
}
COMMON: dict[str, Any] = {
    "negatives": Persistent(5, 100),
    "steps": 20_000,
    "rate": Linear(0.1, 0.0, 20_000.0),
    "evidence": Normalised(AIS(5_000, 100)),
}
QUICK: dict[str, Any] = {"steps": 100, "evidence": Normalised(AIS(50, 20))}


def main() -> None:
    """Fit and score the sets that were named, or all, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="set", help=f"which of {', '.join(SETTINGS)}; all unless named")
    parser.add_argument("--quick", action="store_true", help="few steps: to see that it runs; writes nothing")
    chosen = parser.parse_args()
    for name in set(chosen.names) - set(SETTINGS):
        parser.error(f"no set is called {name}; there are {', '.join(SETTINGS)}.")
    for name in chosen.names or SETTINGS:
        found = measured(name, COMMON | SETTINGS[name] | (QUICK if chosen.quick else {}))
        if not chosen.quick:
            keep(name, found)


def measured(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The comparison of a set, printed, as plain numbers."""
    data, one = load_dataset(name), RBM(**fields, kind="binary", random_state=0)
    made = rv.compare(data.train, {"rbm": one}, held_out=data.test)
    print(f"{name}\n\n{made}\n", flush=True)
    spelt = {field: spell(value) for field, value in fields.items()}
    return {"set": name, "columns": data.train.shape[1], "fields": spelt, "comparison": made.to_json()}


def keep(name: str, found: dict[str, Any]) -> None:
    """Write the file of a set, and the table of all."""
    folder = RESULTS / "debd"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    kept = [folder / f"{name}.json" for name in SETTINGS if (folder / f"{name}.json").exists()]
    (RESULTS / "debd.md").write_text(page([json.loads(path.read_text()) for path in kept]))


def page(results: list[dict[str, Any]]) -> str:
    """A line for each set."""
    heads = ["set", "columns", "rows", "RBM, at least", "RBM, at most", *OTHERS, "chow-liu, published"]
    heads += ["verdict on RBM", "seconds"]
    lines = [heads, ["---"] * len(heads), *map(line, results)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def line(found: dict[str, Any]) -> list[str]:
    """The cells of a set."""
    made = found["comparison"]
    models = {entry["model"]: entry for entry in made["rows"]}
    one = models["rbm"]
    numbers = [lowest(one), number(one), *(number(models[other]) for other in OTHERS)]
    numbers += [f"{PUBLISHED[found['set']]:.2f}"]
    words = one["verdict"].removeprefix("first: ")
    return [found["set"], str(found["columns"]), str(made["train_rows"]), *numbers, words, f"{one['seconds']:.0f}"]


def lowest(entry: dict[str, Any]) -> str:
    """The lower bound; an exact number is one. In place of the error of log Z it has that of its distance."""
    if entry["low"] is None:
        return number(entry)
    error = (entry["standard_error"] ** 2 - entry["shared_error"] ** 2 + entry["low_error"] ** 2) ** 0.5
    return number({"log_likelihood": entry["low"], "standard_error": error})


def number(entry: dict[str, Any]) -> str:
    """A mean and its standard error."""
    return f"{entry['log_likelihood']:.2f} ± {entry['standard_error']:.2f}"


if __name__ == "__main__":
    main()
