"""The gallery: one page per recipe, made from its file's header and from results that a command measured.

A result is a file `ravine/recipes/results/<recipe>-<scale>.json`, written by `ravine reproduce`; a recipe without one
says so. Results of studies are in `ravine/studies/results`; their tables and pictures are made by the study itself.
"""

import ast
import html
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ravine.registry import STUDIES, headline, study

HERE = Path(__file__).parent
RECIPES = HERE.parent / "ravine" / "recipes"
RESULTS = RECIPES / "results"
STUDIED = HERE.parent / "ravine" / "studies" / "results"


@dataclass(frozen=True)
class Recipe:
    """What the file of a recipe says about itself."""

    path: Path
    class_name: str
    header: str

    @property
    def title(self) -> str:
        """First sentence of the header."""
        return re.split(r"\.\s", self.header.strip() + " ", maxsplit=1)[0].rstrip(".")

    @property
    def body(self) -> str:
        """The header after its first sentence."""
        return self.header.strip()[len(self.title) :].lstrip(". \n")


def recipes(folder: Path = RECIPES) -> list[Recipe]:
    """Every recipe file, in the order of names: a recipe is a file whose header and class are public."""
    found = []
    for path in sorted(folder.glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        header = ast.get_docstring(tree)
        classes = [n.name for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
        if header and classes:
            found.append(Recipe(path, classes[-1], header))
    return found


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Every measured result, in the order of file names."""
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.json"), key=lambda p: p.stem)]


def same_name(a: str, b: str) -> bool:
    """Whether two spellings name one recipe: `GaussianMixture`, `gaussian-mixture`, `gaussian_mixture`."""
    return re.sub(r"[-_]", "", a).lower() == re.sub(r"[-_]", "", b).lower()


def of(recipe: Recipe, measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of one recipe."""
    names = recipe.class_name, recipe.path.stem
    return [r for r in measured if any(same_name(r["recipe"], name) for name in names)]


SAYS = {"exact": "exact", "lower": "lower bound", "upper": "upper bound", "estimate": "estimate"}


def nats(measured: dict[str, Any]) -> str:
    """A log-likelihood as a person reads it: value, standard error, what kind of number it is."""
    value, error = measured["log_likelihood"], measured["standard_error"]
    return f"{value:.2f} ± {error:.2f} nats ({SAYS[measured['direction']]}, {measured['method']})"


def number(measured: dict[str, Any]) -> str:
    """What was measured as a person reads it: a log-likelihood, or the share of right classes."""
    if "accuracy" not in measured:
        return nats(measured)
    share, error = (100 * measured[name] for name in ("accuracy", "standard_error"))
    return f"{share:.2f} ± {error:.2f} % right"


def duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, hours above."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"


def curve_svg(curve: list[float], width: int = 480, height: int = 120) -> str:
    """A learning curve as a small inline picture; its ends are labelled with their values."""
    low, high = min(curve), max(curve)
    across, down = width / max(len(curve) - 1, 1), height / ((high - low) or 1.0)
    points = " ".join(f"{i * across:.1f},{(high - v) * down:.1f}" for i, v in enumerate(curve))
    label = html.escape(f"learning curve from {curve[0]:.2f} to {curve[-1]:.2f}")
    return (
        f'<svg viewBox="-4 -4 {width + 8} {height + 8}" width="{width}" role="img" aria-label="{label}">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )


def table(rows: list[list[str]], head: list[str]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def reported(found: dict[str, Any]) -> str:
    """The number to compare with, and where it was read."""
    value = theirs(found)
    unit = " right" if value.endswith("%") else " nats"
    return f"{value}{unit} ({found['source']})" if value else found["source"]


def theirs(found: dict[str, Any]) -> str:
    """The reported number alone; nothing where there is none."""
    share, value = found.get("accuracy"), found.get("log_likelihood")
    return f"{100 * share:.2f} %" if share is not None else "" if value is None else f"{value:.2f}"


def accuracy(result: dict[str, Any]) -> list[list[str]]:
    """The share of right classes, where a model of rows learned from labels too."""
    found = result.get("accuracy")
    if not found:
        return []
    other = f", reported {100 * found['reported']:.2f} %" if found["reported"] else ""
    told = f"{found['labels of each class']} labels of each class"
    return [["right classes", f"{100 * found['measured']:.2f} %{other} ({told})"]]


def spread(measured: dict[str, Any]) -> list[list[str]]:
    """The test errors of a classifier, one for each seed."""
    if "accuracy" not in measured:
        return []
    each = ", ".join(f"{100 * (1 - share):.2f}" for share in measured["seeds"])
    seeds = f" ({each})" if len(measured["seeds"]) > 1 else ""
    return [["test error", f"{measured['test error, %']:.2f} %{seeds} of {measured['rows']} rows"]]


def dreams(result: dict[str, Any]) -> list[list[str]]:
    """How rows made of a label are told by another classifier, what they teach, and how far they are apart."""
    found = result.get("dreams")
    if not found:
        return []
    judge = f"{found['judged by']}, which is right in {100 * found['judge']:.1f} % of test rows"
    told = [f"{100 * found['measured']:.1f} % told as their label by {judge}"]
    if "student" in found:
        theirs, real = (100 * found["student"][which] for which in ("measured", "of real rows"))
        told += [f"a support vector machine that knows them alone is right in {theirs:.1f} % of test rows"]
        told += [f"one that knows as many real rows in {real:.1f} %"]
        told += [f"two of a label are {found['spread']['measured']:.2f} times as far apart as real ones"]
    return [[f"{found['of each label']} rows made of each label", "; ".join(told)]]


def annealed(result: dict[str, Any]) -> list[list[str]]:
    """How far the weights of the chains that found log Z are apart, and whether chains are where rows lead to."""
    found = result.get("log_partition", [])
    deviations = ", ".join(f"{one['deviation']:.2f}" for one in found)
    lines = [[f"log Z, {found[0]['method']}", f"deviation of its log weights: {deviations}"]] if found else []
    tops = result.get("top_energies", [])
    pairs = ", ".join(f"{one['rows']:.0f} and {one['draws']:.0f}" for one in tops)
    return lines + ([["energies on top, of rows and of draws", pairs]] if tops else [])


def active(result: dict[str, Any]) -> list[list[str]]:
    """The share of cells that fire, layer by layer: means over the seeds."""
    found = result.get("active", [])
    means = [sum(each) / len(each) for each in zip(*found, strict=True)]
    return [["active cells, the lowest layer first", ", ".join(f"{mean:.2f}" for mean in means)]] if found else []


def measurement(result: dict[str, Any]) -> str:
    """What one run measured, how long it took on what, and the command that repeats it."""
    tells = "accuracy" in result["measured"]
    rows = [
        ["reported", reported(result["reported"])],
        *accuracy(result),
        ["data", f"{result['data']}: {result['treated']}"],
        ["measured", number(result["measured"])],
        *spread(result["measured"]),
        *dreams(result),
        *annealed(result),
        *active(result),
        *([f"beside, {one['rows']} rows", nats(one)] for one in result.get("beside", [])),
        ["time", f"{duration(result['seconds'])} on {result['device']}"],
    ]
    head = "classes of test rows" if tells else "log p(x) per row, held out"
    parts = [table(rows, ["", head]), f"```console\n{result['command']}\n```\n"]
    picture = RESULTS / f"{result['recipe']}-{result['scale']}.png"
    if picture.exists():
        where = f"../../../ravine/recipes/results/{picture.name}"
        parts.append(f"```{{image}} {where}\n:alt: a line for each label of images that were made of it\n```\n")
    heights, words = curve(result["curve"], tells)
    if len(heights) > 1:
        parts.append(f"```{{raw}} html\n{curve_svg(heights)}\n```\n\n{words}\n")
    return "\n".join(parts)


def curve(lines: list[dict[str, Any]], tells: bool) -> tuple[list[float], str]:
    """The heights of a learning curve, and what they are: of a classifier its loss, else the bound."""
    held_out = [line["held_out"] for line in lines if "held_out" in line]
    if not tells:
        return [-loss for loss in held_out], "The bound on held-out rows during training."
    if held_out:
        return held_out, "The loss on held-out rows during training, the lowest so far."
    return [line["loss"] for line in lines if "loss" in line], "The loss on the training rows."


def overview(found: list[dict[str, Any]]) -> list[str]:
    """All results of a recipe in one table, where there are several; all or none of them tell classes, or dream."""
    cells = []
    for result in found:
        seeds = len(result["measured"]["seeds"])
        classes, made = [text for _, text in accuracy(result)], list(likeness(result).values())
        line = [f"`{result['scale']}`", result["data"], theirs(result["reported"])]
        line += [number(result["measured"]), str(seeds)]
        cells.append([*line, *classes, *made])
    told = ["right classes"] if any(map(accuracy, found)) else []
    heads = ["scale", "data", "reported", "measured", "seeds", *told, *likeness(found[0] if found else {})]
    return [table(cells, heads)] if len(found) > 1 else []


def likeness(result: dict[str, Any]) -> dict[str, str]:
    """What rows made of a label are like, by the head of a column."""
    made = result.get("dreams", {})
    if "student" not in made:
        return {}
    told, taught = (f"{100 * one['measured']:.1f} %" for one in (made, made["student"]))
    spread = f"{made['spread']['measured']:.2f}"
    return {"made, told as their label": told, "taught by these alone": taught, "as far apart as real ones": spread}


def page(recipe: Recipe, measured: list[dict[str, Any]]) -> str:
    """The page of one recipe: header, measured numbers, parameters, the whole file."""
    found = of(recipe, measured)
    mine = (
        "\n".join([*overview(found), *map(measurement, found)]) or "No result of this recipe has been recorded yet.\n"
    )
    module = f"ravine.recipes.{recipe.path.stem}"
    source = f"../../../ravine/recipes/{recipe.path.name}"
    return (
        f"# {recipe.title}\n\n{recipe.body}\n\n## Measured\n\n{mine}\n## Parameters\n\n"
        f"```{{eval-rst}}\n.. autoclass:: {module}.{recipe.class_name}\n   :no-index:\n   :no-members:\n```\n\n"
        f"## The whole recipe\n\n```{{literalinclude}} {source}\n:language: python\n```\n"
    )


def studied(name: str, found: list[dict[str, Any]], folder: Path) -> str:
    """The page of a study; its pictures are drawn into the folder of pages."""
    header = (study(name).__doc__ or "").strip()
    title, _, body = header.partition(". ")
    parts = [f"# {title}\n\n{body}\n"]
    for result in found:
        picture = f"{name}-{result['scale']}.png"
        study(name).picture(result).savefig(folder / picture, dpi=110)
        settings = ", ".join(f"{key} {value}" for key, value in result["settings"].items())
        took = f"{duration(result['seconds'])} on {result['device']}"
        parts.append(f"## {settings}, {len(result['seeds'])} seeds\n\n{study(name).words(result)}")
        parts.append(f"```{{image}} {picture}\n:alt: curves of the table above\n```\n")
        parts.append(f"```console\n$ {result['command']}\n```\n\nIt took {took}.\n")
    return "\n".join(parts)


def studies(folder: Path) -> dict[str, str]:
    """File name to text: one page for each study, and its tables alone for other pages to include."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name in STUDIES:
        found = [result for result in results(STUDIED) if result["study"] == name]
        written[f"gallery/{name}.md"] = studied(name, found, folder)
        written |= {f"tables/{name}-{result['scale']}.md": study(name).words(result) for result in found}
    return written


def index(found: list[Recipe], measured: list[dict[str, Any]]) -> str:
    """The first page of the gallery: every recipe with its number, at the largest scale measured; and the studies."""
    rows = []
    for recipe in found:
        mine = {result["scale"]: result for result in of(recipe, measured)}
        chosen = mine.get("paper", mine.get("long", mine.get("small")))
        best = number(chosen["measured"]) if chosen else "not recorded yet"
        rows.append([f"[{recipe.class_name}](gallery/{recipe.path.stem}.md)", recipe.title, best])
    entries = "\n".join([*(f"gallery/{r.path.stem}" for r in found), *(f"gallery/{name}" for name in STUDIES)])
    others = "".join(f"- [{name}](gallery/{name}.md): {headline(name)}\n" for name in STUDIES)
    head = "# Gallery\n\nEvery number here was written by the command beside it.\n\n"
    body = table(rows, ["recipe", "what it is", "held-out log p(x) per row, or classes"])
    body += f"\nProblems of papers that fit no model to data:\n\n{others}"
    return f"{head}{body}\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


def pages() -> dict[str, str]:
    """File name to text: the gallery's index and one page per recipe."""
    found, measured = recipes(), results()
    own = {f"gallery/{r.path.stem}.md": page(r, measured) for r in found}
    return {"gallery.md": index(found, measured)} | own | studies(HERE / "generated" / "gallery")
