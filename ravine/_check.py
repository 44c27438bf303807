"""The one sentence in which Ravine reports a user's mistake: what was expected, what came, what to do."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class Complaint(ValueError):
    """A mistake in what the user gave. The message is one line, so a shell can print it as it stands."""


class Absent(Complaint, AttributeError):
    """A verb that a model does not have: `hasattr` says so, and whoever calls it reads why."""


def one_line(text: object, limit: int = 600) -> str:
    r"""Text as one printable line: white space joined, control characters escaped, the middle cut when long.

    Examples
    --------
    >>> one_line("two\n lines")
    'two lines'
    """
    joined = " ".join(str(text).split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in joined)
    half = (limit - 5) // 2
    return line if len(line) <= limit else f"{line[:half]} ... {line[-half:]}"


def shown(value: object, limit: int = 60) -> str:
    """A value as a short quotation inside a message.

    Examples
    --------
    >>> shown("a" * 100, limit=15)
    "'aaaa ... aaaa'"
    """
    return one_line(repr(value), limit)


def complaint(what: str, expected: str, got: str, do: str) -> Complaint:
    """The standard error, to be raised by the caller.

    Parameters
    ----------
    what : the thing at fault, such as a file, an argument or a column.
    expected, got : what should have been there and what was.
    do : what the user can change.

    Examples
    --------
    >>> print(complaint("rows.csv, line 3", "4 values", "5", "remove the extra comma"))
    rows.csv, line 3: expected 4 values, got 5; remove the extra comma.
    """
    return Complaint(one_line(f"{what}: expected {expected}, got {got}; {do}."))


def require(holds: object, what: str, expected: str, got: str, do: str) -> None:
    """Raise `complaint` unless ``holds``.

    Examples
    --------
    >>> require(2 > 1, "order", "2 above 1", "the opposite", "wait")
    """
    if not holds:
        raise complaint(what, expected, got, do)


def one_of(what: str, got: object, choices: Collection[object]) -> None:
    """Raise unless ``got`` is one of ``choices``.

    Examples
    --------
    >>> one_of("kind", "bits", ("real", "binary"))
    Traceback (most recent call last):
    ravine._check.Complaint: kind: expected one of 'real', 'binary', got 'bits'; choose one of these.
    """
    listed = ", ".join(map(repr, choices))
    require(got in choices, what, f"one of {listed}", shown(got), "choose one of these")


def whole(what: str, got: object, least: int = 1) -> int:
    """The integer ``got``, or a complaint when it is not a whole number of at least ``least``.

    Examples
    --------
    >>> whole("latents", 3)
    3
    >>> whole("latents", 0)
    Traceback (most recent call last):
    ravine._check.Complaint: latents: expected a whole number of at least 1, got 0; change it.
    """
    value = int(got) if isinstance(got, numbers.Integral) and not isinstance(got, bool) else least - 1
    require(value >= least, what, f"a whole number of at least {least}", shown(got), "change it")
    return value


def positive(what: str, got: object) -> float:
    """The number ``got``, or a complaint when it is not positive and finite.

    Examples
    --------
    >>> positive("beta", 0.5)
    0.5
    """
    value = float(got) if isinstance(got, numbers.Real) and not isinstance(got, bool) else math.nan
    require(0 < value < math.inf, what, "a positive number", shown(got), "change it")
    return value


def same_shape(what: str, got: tuple[int, ...], want: tuple[int, ...], do: str) -> None:
    """Raise unless two shapes are equal.

    Examples
    --------
    >>> same_shape("Row.x", (3,), (3,), "reshape it")
    """
    require(tuple(got) == tuple(want), what, f"shape {tuple(want)}", f"{tuple(got)}", do)


@contextmanager
def translated(what: str, expected: str, do: str) -> Iterator[None]:
    """Turn any error that a library raises in the body into a `Complaint`; complaints pass as they are.

    Examples
    --------
    >>> with translated("n", "digits", "type a number"):
    ...     int("x")
    Traceback (most recent call last):
    ravine._check.Complaint: n: expected digits, got invalid literal for int() with base 10: 'x'; type a number.
    """
    try:
        yield
    except Complaint:
        raise
    except Exception as error:
        reason = one_line(error, 200).rstrip(".") or type(error).__name__
        raise complaint(what, expected, reason, do) from error
