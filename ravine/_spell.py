"""Values as text that reads the same in Python, in the shell and in a file. `ravine.registry.parse` is the inverse."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import sys
from collections.abc import Iterator
from typing import Any

from ravine._check import complaint, shown

# Functions that may stand in a field. Their names say all: the same function of JAX is written, and read, as Ravine's.
ACTIVATIONS: tuple[str, ...] = ("elu", "gelu", "identity", "relu", "sigmoid", "silu", "softplus", "tanh")
OPTIMISERS: tuple[str, ...] = ("adabelief", "adagrad", "adam", "adamw", "lion", "radam", "rmsprop", "sgd")
_HOMES = ("jax", "optax", "ravine")


def kebab(name: str) -> str:
    """The name of a class as the shell writes it.

    Examples
    --------
    >>> kebab("GaussianMixture"), kebab("GumbelVAE"), kebab("RBM")
    ('gaussian-mixture', 'gumbel-vae', 'rbm')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()


def spell(value: Any, *, defaults: bool = False) -> str:
    """A value in the grammar of `ravine.registry.parse`.

    Numbers, text, truth values, None, tuples, lists, dictionaries, activations and optimisers by name, and parts:
    modules and dataclasses whose constructor takes what their fields hold.

    Parameters
    ----------
    value : what to write. A numpy or JAX scalar is written as the Python number it equals.
    defaults : write the arguments of parts that are at their default too; a text that is to outlive this release
        does not depend on its defaults then.

    Raises
    ------
    ValueError
        When the value has no such text: an array, a lambda, a class, a generator of random numbers.

    Examples
    --------
    >>> from ravine._tree import Decay
    >>> import jax.numpy as jnp
    >>> spell((Decay(3e-5, floor=0.5), jnp.tanh, (200,)))
    '(Decay(rate=3e-05, floor=0.5), tanh, (200,))'
    """
    try:
        return _spell(value, defaults)
    except RecursionError:
        raise complaint("this value", "a few levels", "one too deep, or holding itself", "flatten it") from None


def _spell(value: Any, defaults: bool) -> str:
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str):
        return repr(str(value))
    if isinstance(value, int) and -(2**64) < value < 2**64:
        return repr(int(value))
    if isinstance(value, float):
        return _number(float(value))
    if isinstance(value, (tuple, list, dict)):
        return _several(value, defaults)
    if getattr(value, "shape", None) == () and hasattr(value, "item") and not dataclasses.is_dataclass(value):
        return _scalar(value, defaults)
    if _is_named(value):
        return str(value.__name__)  # pyright: ignore[reportAttributeAccessIssue]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({', '.join(_arguments(value, defaults))})"
    raise _unspelled(value)


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else ("-" if value < 0 else "") + ("nan" if math.isnan(value) else "inf")


def _several(value: Any, defaults: bool) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_spell(k, defaults)}: {_spell(v, defaults)}" for k, v in value.items()) + "}"
    inside = ", ".join(_spell(item, defaults) for item in value)
    if isinstance(value, list):
        return f"[{inside}]"
    return f"({inside},)" if len(value) == 1 else f"({inside})"


def _scalar(value: Any, defaults: bool) -> str:
    plain = value.item()
    if not isinstance(plain, (bool, int, float, str)):
        raise _unspelled(value)
    return _spell(plain, defaults)


def _is_named(value: Any) -> bool:
    name, home = getattr(value, "__name__", None), str(getattr(value, "__module__", None))
    known = name in ACTIVATIONS + OPTIMISERS and home.split(".")[0] in _HOMES
    return known and getattr(sys.modules.get(home), str(name), None) is value


def _arguments(value: Any, defaults: bool) -> Iterator[str]:
    """The arguments that make an equal part, ``name=value``."""
    for name, parameter in inspect.signature(type(value)).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD or not hasattr(value, name):
            raise _unspelled(value)
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from (_spell(item, defaults) for item in getattr(value, name))
            continue
        text = _spell(getattr(value, name), defaults)
        if defaults or text != _default(parameter):
            yield f"{name}={text}"


def _default(parameter: inspect.Parameter) -> str | None:
    try:
        return None if parameter.default is parameter.empty else _spell(parameter.default, False)
    except ValueError:
        return None


def _unspelled(value: Any) -> ValueError:
    can = "a number, text, tuple, list, dictionary, part or named function"
    return complaint(shown(value), can, f"a {type(value).__name__}", "use one of these, so that it can be written down")
