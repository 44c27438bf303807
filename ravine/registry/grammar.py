"""Text to values: literals, and parts by name, as Python spells them. Nothing is evaluated."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import types
import typing
import warnings
from typing import Any

from ravine._check import Complaint, complaint, one_line, shown
from ravine.registry.names import FUNCTIONS, fits, function, hint_text, hints, parts, signature, suited, unknown

LONGEST, DEEPEST = 1_000_000, 32  # a given start of a mixture is long
_GRAMMAR = "numbers, quoted text, True, False, None, tuples, lists, dictionaries and parts such as Pathwise(4)"
_CONSTANTS = {"inf": float("inf"), "nan": float("nan")}
_STRING = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\"""", re.DOTALL)
_OUTSIDE_STRINGS = re.compile(r"[A-Za-z0-9_.,:()\[\]{}=+\-\s]*", re.ASCII)
_BARE_WORD = re.compile(r"(?!(?:True|False|None)$)[A-Za-z_][\w./-]*", re.ASCII)


def parse(text: str, expects: Any = None) -> Any:
    """The value that a text stands for.

    The grammar is Python's for numbers, quoted text, ``True``, ``False``, ``None``, ``inf``, ``nan``, tuples, lists,
    dictionaries; activations and optimisers stand by their names; parts are calls with such arguments.

    Parameters
    ----------
    text : at most 1,000,000 characters, nested at most 32 deep.
    expects : the annotation of the field that the value is for. Where it allows text, a bare word that is no part is
        text.

    Raises
    ------
    ValueError
        When the text is outside the grammar, names what is not there (the closest names are listed), or gives a part
        the wrong arguments (its signature is shown).

    Examples
    --------
    >>> parse("(200, 200)"), parse("tanh").__name__, parse("Decay(3e-5, floor=0.5)")
    ((200, 200), 'tanh', Decay(rate=3e-05, floor=0.5))
    >>> parse("static", expects=str)
    'static'
    """
    if not isinstance(text, str) or len(text) > LONGEST:
        got = f"{len(text)} characters" if isinstance(text, str) else f"a {type(text).__name__}"
        raise complaint("a value", f"text of at most {LONGEST} characters", got, "shorten it")
    text = text.strip()
    if _allows_text(expects) and _BARE_WORD.fullmatch(text) and (text in FUNCTIONS or text not in parts()):
        return text
    return _value(text, 0, _syntax(text))


def _allows_text(hint: Any) -> bool:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return any(isinstance(choice, str) for choice in inside)
    return hint is str or (origin in (typing.Union, types.UnionType) and any(map(_allows_text, inside)))


def _syntax(text: str) -> ast.expr:
    if not _OUTSIDE_STRINGS.fullmatch(_STRING.sub("", text)):
        raise _outside(text, "this")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in quoted text
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "too many levels or digits"
        raise _outside(text, f"what does not parse ({one_line(reason, 80)})") from None


def _outside(text: str, got: str) -> Complaint:
    return complaint(f"value {shown(text)}", _GRAMMAR, got, "write it so; text needs quotes")


def _value(text: str, depth: int, node: ast.expr) -> Any:
    """The value of a node; ``text`` is only quoted in complaints."""
    if depth > DEEPEST:
        raise _outside(text, f"more than {DEEPEST} levels")
    inner = functools.partial(_value, text, depth + 1)
    match node:
        case ast.Constant(value=bool() | float() | str() | None as value):
            return value
        case ast.Constant(value=int() as value) if value < 2**64:
            return value
        case ast.Tuple(elts=items):
            return tuple(map(inner, items))
        case ast.List(elts=items):
            return list(map(inner, items))
        case ast.Dict(keys=keys, values=values) if None not in keys:
            return _dictionary(text, [inner(key) for key in keys if key], list(map(inner, values)))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            return _signed(text, sign, inner(operand))
        case ast.Name(id=name):
            return _named(name)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=pairs) if _distinct([pair.arg for pair in pairs]):
            return _made(name, list(map(inner, args)), {str(pair.arg): inner(pair.value) for pair in pairs})
    raise _outside(text, f"a {type(node).__name__}")


def _distinct(names: list[str | None]) -> bool:
    return None not in names and len(set(names)) == len(names)


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
        raise complaint(f"part {name}", signature(name), "its name alone", "give it its arguments, or ()")
    raise unknown(
        "name", name, [*parts(), *_CONSTANTS, "True", "False", "None"], do="choose one, or put text in quotes"
    )


def _made(name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
    """A part from its arguments."""
    if name in FUNCTIONS or name not in parts():
        raise unknown("part", name, parts().keys() - FUNCTIONS.keys())
    cls = parts()[name]
    try:
        given = inspect.signature(cls).bind(*args, **keywords)
        given.arguments = _suited(given.arguments, hints(cls))
        return cls(*given.args, **given.kwargs)
    except Exception as error:  # whatever a constructor objects to, the arguments are to blame
        reason = one_line(error, 200).rstrip(".") or type(error).__name__
        raise complaint(f"part {name}", signature(name), reason, "correct the arguments") from error


def _suited(given: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    for argument, value in given.items():
        if not fits(value, wanted.get(argument, Any)):
            raise TypeError(f"{argument}={shown(value)} where {hint_text(wanted[argument])} is needed")
    return {argument: suited(value, wanted.get(argument, Any)) for argument, value in given.items()}
