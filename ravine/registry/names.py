"""The parts that text may name, how each is written, and whether a value suits a field."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ravine._check import Complaint, complaint, shown
from ravine._spell import ACTIVATIONS, OPTIMISERS, spell

# Where parts live; with a second entry only what implements that interface is a part.
PARTS: tuple[tuple[str, str | None], ...] = (
    ("ravine._tree", None),
    ("ravine.dist", "AbstractLink"),
    ("ravine.evidence", None),
    ("ravine.gradients", None),
    ("ravine.latent_layers", None),
    ("ravine.models.belief_chains", "AbstractInference"),
    ("ravine.models.boltzmann", "AbstractFill"),
    ("ravine.models.coupled", "AbstractOnTop"),
    ("ravine.models.coupled", "Maps"),
    ("ravine.models.errors", "AbstractErrors"),
    ("ravine.models.families", "AbstractFamily"),
    ("ravine.models.families", "AbstractStart"),
    ("ravine.models.forward_forward", "AbstractLabelPlace"),
    ("ravine.models.forward_forward", "AbstractReadOut"),
    ("ravine.models.goodness", "AbstractGoodness"),
    ("ravine.models.goodness", "AbstractRectifier"),
    ("ravine.models.goodness", "Local"),
    ("ravine.models.labelled_energy", "AbstractLabelContrast"),
    ("ravine.models.latent_tree", "AbstractLeaf"),
    ("ravine.models.latent_tree", "AbstractOrder"),
    ("ravine.models.mean_field", "AbstractInference"),
    ("ravine.models.missingness", "AbstractMissingness"),
    ("ravine.models.moves", "AbstractMoves"),
    ("ravine.models.neural_coding", "AbstractFeedback"),
    ("ravine.models.neural_coding", "Competition"),
    ("ravine.models.neural_coding", "NeuralCircuit"),
    ("ravine.models.sparse_coding", "AbstractPursuit"),
    ("ravine.models.sparse_coding", "AbstractShrinkage"),
    ("ravine.models.sparse_coding", "AbstractStop"),
    ("ravine.models.unit_groups", "AbstractUnits"),
    ("ravine.models.units", "AbstractUnits"),
    ("ravine.objectives", None),
    ("ravine.objectives.goodness", "AbstractOthers"),
    ("ravine.recognisers.exact", "AbstractInference"),
    ("ravine.recognisers.settling", "AbstractSettling"),
    ("ravine.rules", None),
)

# Functions that text may name, and where they live.
FUNCTIONS: Mapping[str, str] = dict.fromkeys(ACTIVATIONS, "ravine.nets") | dict.fromkeys(OPTIMISERS, "optax")


@functools.cache
def parts() -> Mapping[str, Any]:
    """Every name that text may use: the classes of parts, activations and optimisers.

    Examples
    --------
    >>> parts()["Pathwise"]
    <class 'ravine.gradients.pathwise.Pathwise'>
    """
    found = {name: function(name) for name in FUNCTIONS}
    for module_name, interface in PARTS:
        module = importlib.import_module(module_name)
        base = getattr(module, interface) if interface else object
        found |= {name: cls for name, cls in _public_classes(module) if issubclass(cls, base)}
    return types.MappingProxyType(dict(sorted(found.items())))


def function(name: str) -> Any:
    """The activation or optimiser of this name, which must be in `FUNCTIONS`."""
    return getattr(importlib.import_module(FUNCTIONS[name]), name)


def _public_classes(module: types.ModuleType) -> Iterable[tuple[str, type]]:
    """The module's own final classes, without laws and models, which hold what is learned."""
    from ravine import core

    learned = (core.AbstractDistribution, core.AbstractGenerator, core.AbstractPosterior, core.AbstractRecogniser)
    for name in getattr(module, "__all__", vars(module)):
        value = getattr(module, name)
        own = inspect.isclass(value) and value.__module__.startswith(module.__name__)
        if not own or name.startswith(("_", "Abstract")):
            continue
        if issubclass(value, core.AbstractInference) or not issubclass(value, (*learned, tuple)):
            yield name, value


def signature(name: str) -> str:
    """How a part is written, with its defaults.

    Examples
    --------
    >>> signature("Decay")
    'Decay(rate, floor=0.0, start=1.0)'
    """
    given = inspect.signature(parts()[name]).parameters.values()
    return f"{name}({', '.join(map(_argument, given))})"


def _argument(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return str(parameter.replace(annotation=parameter.empty))
    return f"{parameter.name}={default_text(parameter.default)}"


def default_text(value: Any) -> str:
    """A default as text; an ellipsis when it has none."""
    try:
        return spell(value)
    except ValueError:
        return "..."


def hints(cls: type) -> dict[str, Any]:
    """The annotations of a class, resolved."""
    return typing.get_type_hints(cls)


def hint_text(hint: Any) -> str:
    """An annotation as a message shows it.

    Examples
    --------
    >>> hint_text(tuple[int, ...]), hint_text(float | None)
    ('tuple[int, ...]', 'float | None')
    """
    named = isinstance(hint, type) and not typing.get_args(hint)
    return hint.__name__ if named else re.sub(r"\b(?:\w+\.)+", "", str(hint))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value that was written as text may stand where this annotation is; where in doubt, yes.

    Examples
    --------
    >>> fits(3, float), fits("3", float | None), fits([200], tuple[int, ...]), fits("3", Any)
    (True, False, True, True)
    """
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in inside)
    if origin is typing.Literal:
        return value in inside
    if origin in (tuple, list):
        items = inside[0] if origin is list or inside[-1:] == (...,) else Any
        return isinstance(value, (tuple, list)) and all(fits(item, items) for item in value)
    if hint in (int, float, bool):  # in Python's way: an int will do for a float, a bool for an int
        return isinstance(value, (int, float) if hint is float else int)
    if Callable in (hint, origin):
        return callable(value)
    return isinstance(value, hint) if isinstance(hint, type) and hint is not Any else True


def suited(value: Any, hint: Any) -> Any:
    """The value; as a float where a whole number stands for one, so that another value does not compile again.

    Examples
    --------
    >>> suited(3, float | None), suited(3, int | float)
    (3.0, 3)
    """
    choices = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return float(value) if type(value) is int and float in choices and int not in choices else value


def unknown(kind: str, name: str, names: Iterable[str], ask: str | None = None, do: str = "choose one") -> Complaint:
    """What is said of a name that is in no table, with the closest that are."""
    known = sorted(names)
    close = difflib.get_close_matches(ask or name[:99], known, n=3, cutoff=0.5)
    listed = ", ".join(close or known[:12]) + ("" if close or len(known) <= 12 else ", ...")
    return complaint(kind, f"{'one like' if close else 'one of'} {listed}", shown(name), do)
