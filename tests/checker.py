"""The run-time type checker of the test run: beartype, taught to read `Self` in a class that it does not decorate."""

from typing import Any, Self

from beartype import BeartypeConf, FrozenDict, beartype

checked = beartype(conf=BeartypeConf(hint_overrides=FrozenDict({Self: Any})))
