"""One reference page per module or package of `ravine`, from its docstrings."""

import importlib
import pkgutil

import ravine

# The order a reader meets them in; a module that is not named here follows, sorted.
USED = ("recipes", "estimator", "classifier", "cli", "compare", "registry", "report", "data")
LEARNING = ("train", "rules", "objectives", "gradients", "evidence", "diagnose", "checkpoint")
PARTS = ("models", "recognisers", "posteriors", "nets", "dist", "kernels", "core")
ORDER = USED + LEARNING + PARTS


def public_modules() -> list[str]:
    """Names of the modules directly inside `ravine`, without the private ones."""
    found = sorted(m.name for m in pkgutil.iter_modules(ravine.__path__) if not m.name.startswith("_"))
    return [n for n in ORDER if n in found] + [n for n in found if n not in ORDER]


def inner_modules(name: str) -> list[str]:
    """Full names of a module and, if it is a package, of the modules in it."""
    full = f"ravine.{name}"
    package = importlib.import_module(full)
    inner = pkgutil.walk_packages(getattr(package, "__path__", []), f"{full}.")
    return [full, *sorted(m.name for m in inner if not m.name.rsplit(".", 1)[1].startswith("_"))]


def automodule(full: str, level: int) -> str:
    """The directive that prints the docstrings of one module, under its name."""
    return f"{'#' * level} {full}\n\n```{{eval-rst}}\n.. automodule:: {full}\n```\n"


def pages() -> dict[str, str]:
    """File name to text: one page per module directly inside `ravine`, and their index."""
    names = public_modules()
    written = {
        f"api/{name}.md": "\n".join(automodule(full, 1 + (i > 0)) for i, full in enumerate(inner_modules(name)))
        for name in names
    }
    entries = "\n".join(f"api/{name}" for name in names)
    index = f"# Reference\n\nWhat is used first, then what it is made of.\n\n```{{toctree}}\n{entries}\n```\n"
    return written | {"api.md": index}
