"""Names: of recipes, for the shell and for loading; of parts, for text such as ``GumbelSoftmax(Decay(3e-5))``.

A name is looked up in the tables of this file and nowhere else: neither a command line nor a model file can name
a module to import. Importing this module imports no JAX, so that listing recipes is instant.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib
import inspect
import os
import re
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ravine._check import Complaint, complaint, one_line, shown, translated
from ravine._spell import FUNCTIONS, function, kebab

RECIPES: Mapping[str, tuple[str, str]] = {
    "factor-analysis": ("ravine.recipes.factor_analysis", "FactorAnalysis"),
    "gaussian-mixture": ("ravine.recipes.gaussian_mixture", "GaussianMixture"),
    "vae": ("ravine.recipes.vae", "VAE"),
    "variational-factor-analysis": ("ravine.recipes.factor_analysis", "VariationalFactorAnalysis"),
}

# Where parts live; with a second entry only what implements that interface is a part.
PARTS: tuple[tuple[str, str | None], ...] = (
    ("ravine._tree", None),
    ("ravine.dist", "AbstractLink"),
    ("ravine.evidence", None),
    ("ravine.gradients", None),
    ("ravine.objectives", None),
    ("ravine.rules", None),
)

LONGEST, DEEPEST = 100_000, 32
_GRAMMAR = "numbers, quoted text, True, False, None, tuples, lists, dictionaries and parts such as Pathwise(4)"
_CONSTANTS = {"inf": float("inf"), "nan": float("nan")}
_STRING = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\"""", re.DOTALL)
_OUTSIDE_STRINGS = re.compile(r"[A-Za-z0-9_.,:()\[\]{}=+\-\s]*", re.ASCII)
_WORD = re.compile(r"[A-Za-z_][\w./-]*")


# --- recipes -------------------------------------------------------------------------------------------------------


def recipes() -> dict[str, tuple[str, str]]:
    """Every recipe: its name in the shell, and the module and class it lives in. Imports nothing.

    Examples
    --------
    >>> recipes()["vae"]
    ('ravine.recipes.vae', 'VAE')
    """
    return dict(RECIPES)


def recipe(name: str) -> type:
    """The class of a recipe, such as ``recipe("vae")``.

    Raises
    ------
    ValueError
        When there is none of this name; the line lists the closest.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise _unknown("recipe", name, RECIPES, str(name) if len(str(name)) > 99 else kebab(str(name)))
    module, attribute = RECIPES[name]
    return getattr(importlib.import_module(module), attribute)


def load(folder: str | os.PathLike[str]) -> Any:
    """The fitted estimator that was saved in a folder. Reads arrays and JSON; runs nothing that the files name.

    Raises
    ------
    ValueError
        One line: no run folder, damaged or edited files, a newer format, an unknown recipe, part or field.
    """
    from ravine.checkpoint import RECIPE, load_record

    record, path = load_record(folder), Path(folder) / RECIPE
    with _prefixed(path):
        cls = recipe(record["recipe"])
        fields = {name: parse(text) for name, text in record["fields"].items()}
        for name in fields:
            _known_field(cls, name)
    with translated(str(path), "what a fitted model needs", "restore the folder from a copy, or fit and save again"):
        return cls._restore(record, fields, Path(folder))  # pyright: ignore[reportAttributeAccessIssue]


def settings(cls: type, texts: Mapping[str, str]) -> dict[str, Any]:
    """Fields of a recipe from text, as the shell's ``--set name=value`` gives them.

    Raises
    ------
    ValueError
        When the recipe has no such field, the text is outside the grammar, or the value is of another type.
    """
    return {name: _setting(cls, name, text) for name, text in texts.items()}


def _setting(cls: type, name: str, text: str) -> Any:
    _known_field(cls, name)
    hint = _hints(cls).get(name, Any)
    value = parse(text, expects=hint)
    if not fits(value, hint):
        raise complaint(f"{kebab(cls.__name__)}, {name}", _hint_text(hint), shown(value), "change the value")
    return value


def _known_field(cls: type, name: str) -> None:
    names = inspect.signature(cls).parameters
    if name not in names:
        raise _unknown(f"field of {kebab(cls.__name__)}", name, names)


class _prefixed:
    """Put the name of a file before the complaints of the body."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ValueError):
            raise Complaint(one_line(f"{self.path}: {error}")) from None


# --- parts ---------------------------------------------------------------------------------------------------------


@functools.cache
def parts() -> Mapping[str, Any]:
    """Every name that text may use: the classes of parts, and the functions of `ravine._spell.FUNCTIONS`.

    Examples
    --------
    >>> parts()["Pathwise"]
    <class 'ravine.gradients.pathwise.Pathwise'>
    """
    found = {name: function(name) for name in FUNCTIONS}
    for module_name, interface in PARTS:
        module = importlib.import_module(module_name)
        base = getattr(module, interface) if interface else object
        found |= {name: c for name, c in _public_classes(module) if issubclass(c, base) and not inspect.isabstract(c)}
    return types.MappingProxyType(dict(sorted(found.items())))


def _public_classes(module: types.ModuleType) -> Iterable[tuple[str, type]]:
    """Classes of the module's own that are parts of nothing learned: no law, no model."""
    from ravine import core

    learned = (core.AbstractDistribution, core.AbstractGenerator, core.AbstractPosterior, core.AbstractRecogniser)
    for name in getattr(module, "__all__", vars(module)):
        value = getattr(module, name)
        own = inspect.isclass(value) and value.__module__.startswith(module.__name__)
        if own and not name.startswith(("_", "Abstract")) and not issubclass(value, learned):
            yield name, value


def signature(name: str) -> str:
    """How a part is written, with its defaults.

    Examples
    --------
    >>> signature("Decay")
    'Decay(rate, floor=0.0, start=1.0)'
    """
    from ravine._spell import spell

    def one(parameter: inspect.Parameter) -> str:
        if parameter.default is parameter.empty:
            return str(parameter.replace(annotation=parameter.empty))
        try:
            return f"{parameter.name}={spell(parameter.default)}"
        except ValueError:
            return f"{parameter.name}=..."

    return f"{name}({', '.join(one(p) for p in inspect.signature(parts()[name]).parameters.values())})"


# --- text to values ------------------------------------------------------------------------------------------------


def parse(text: str, expects: Any = None) -> Any:
    """The value that a text stands for: literals, and parts by name. Nothing is evaluated.

    The grammar is Python's for numbers, quoted text, ``True``, ``False``, ``None``, ``inf``, ``nan``, tuples, lists,
    dictionaries, the functions of `ravine._spell.FUNCTIONS` by name, and calls of parts with such arguments.

    Parameters
    ----------
    text : at most 100,000 characters, nested at most 32 deep.
    expects : the annotation of the field that the value is for. Where it allows text, a bare word is text.

    Raises
    ------
    ValueError
        When the text is outside the grammar, names what is not there (the closest names are listed), or gives a part
        the wrong arguments (its signature is shown).

    Examples
    --------
    >>> parse("(200, 200)"), parse("tanh").__name__, parse("Decay(3e-5, floor=0.5)")
    ((200, 200), 'tanh', Decay(rate=3e-05, floor=0.5, start=1.0))
    >>> parse("static", expects=str)
    'static'
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        got = f"{len(text)} characters" if isinstance(text, str) else f"a {type(text).__name__}"
        raise complaint("a value", f"text of at most {LONGEST} characters", got, "shorten it")
    text = text.strip()
    if _is_bare_word(text) and _allows_text(expects) and text not in parts().keys() - FUNCTIONS.keys():
        return text
    return _value(_syntax(text), text, 0)


def _is_bare_word(text: str) -> bool:
    return _WORD.fullmatch(text) is not None and text not in ("True", "False", "None")


def _allows_text(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return any(isinstance(choice, str) for choice in typing.get_args(hint))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(map(_allows_text, typing.get_args(hint)))
    return hint is str


def _syntax(text: str) -> ast.expr:
    if not _OUTSIDE_STRINGS.fullmatch(_STRING.sub("", text)):
        raise _outside(text, "something else")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "too many levels or digits"
        raise _outside(text, f"a text that does not parse ({one_line(reason, 80)})") from None


def _outside(text: str, got: str) -> Complaint:
    return complaint(shown(text), _GRAMMAR, got, "write it so; text needs quotes")


def _value(node: ast.expr, text: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise _outside(text, f"more than {DEEPEST} levels")
    inner: Callable[[ast.expr], Any] = lambda child: _value(child, text, depth + 1)  # noqa: E731
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Tuple(elts=items):
            return tuple(map(inner, items))
        case ast.List(elts=items):
            return list(map(inner, items))
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return _dictionary(
                text, [inner(key) for key in keys if key is not None], [inner(value) for value in values]
            )
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            return _signed(text, sign, inner(operand))
        case ast.Name(id=name):
            return _named(name)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if all(k.arg for k in keywords):
            return _made(name, [inner(arg) for arg in args], [(str(k.arg), inner(k.value)) for k in keywords])
    raise _outside(text, f"a {type(node).__name__}")


def _dictionary(text: str, keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    if not all(isinstance(key, (bool, int, float, str)) for key in keys) or len(set(keys)) < len(keys):
        raise _outside(text, "a dictionary whose keys are not distinct numbers or texts")
    return dict(zip(keys, values, strict=True))


def _signed(text: str, sign: ast.unaryop, value: Any) -> Any:
    if type(value) not in (int, float):
        raise _outside(text, "a sign before what is no number")
    return -value if isinstance(sign, ast.USub) else value


def _named(name: str) -> Any:
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    if name in FUNCTIONS:
        return function(name)
    if name in parts():
        raise complaint(name, "a part with its arguments", "its name alone", f"write {signature(name)}")
    raise _unknown("name", name, [*parts(), *_CONSTANTS, "True", "False", "None"], do="put text in quotes")


def _made(name: str, args: list[Any], keywords: list[tuple[str, Any]]) -> Any:
    """A part from its arguments."""
    if name not in parts() or name in FUNCTIONS:
        raise _unknown("part", name, parts().keys() - FUNCTIONS.keys())
    cls = parts()[name]
    try:
        bound = inspect.signature(cls).bind(*args, **dict(keywords))
        for argument, value in bound.arguments.items():
            hint = _hints(cls).get(argument, Any)
            if not fits(value, hint):
                raise TypeError(f"{argument}={shown(value)} where {_hint_text(hint)} is needed")
        return cls(*args, **dict(keywords))
    except Exception as error:
        reason = one_line(error, 200).rstrip(".")
        raise complaint(name, f"arguments as in {signature(name)}", reason, "correct them") from error


def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _hint_text(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else re.sub(r"\b(?:\w+\.)+", "", str(hint))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value that was written as text may stand where this annotation is; where in doubt, yes.

    Examples
    --------
    >>> fits(3, float), fits("3", float | None), fits([200], tuple[int, ...])
    (True, False, True)
    """
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in inside)
    if origin is typing.Literal:
        return value in inside
    if origin in (tuple, list):
        items = inside[0] if inside[-1:] == (...,) or origin is list else Any
        return isinstance(value, (tuple, list)) and all(fits(item, items) for item in value)
    if hint in (int, float, bool):
        return isinstance(value, (int, float) if hint is float else int)
    if hint is None or isinstance(hint, type):
        return isinstance(value, type(None) if hint is None else hint)
    return callable(value) if origin is Callable or hint is typing.Callable else True


def _unknown(kind: str, name: Any, names: Iterable[str], ask: str | None = None, do: str = "choose one") -> Complaint:
    known = sorted(names)
    close = difflib.get_close_matches(ask or str(name)[:99], known, n=3, cutoff=0.5)
    listed = ", ".join(close or known[:12]) + ("" if close or len(known) <= 12 else ", ...")
    return complaint(f"{kind} {shown(name)}", f"a known {kind.split()[0]}, such as {listed}", "this", do)
