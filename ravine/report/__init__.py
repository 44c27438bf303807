"""A fitted model on one page: a single HTML file that opens anywhere, without a network."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ravine._check import one_of
from ravine._files import write_bytes
from ravine.report.again import Origin
from ravine.report.look import look_at
from ravine.report.page import written

__all__ = ["Origin", "report"]


def report(
    model: Any,
    X: Any,
    path: str | Path = "report.html",
    *,
    labels: Any = None,
    findings: Iterable[Any] = (),
    unseen: bool | None = None,
    learned: Any = None,
    title: str | None = None,
    origin: Origin | None = None,
) -> Path:
    """Write a report on a fitted model: one HTML file that holds everything it shows.

    It says how good the fit is (mean log p(x) in nats per row with its standard error, and on which side of the truth
    it errs), how it learned, what the model makes up beside the data, how it fills in cells, a map of the rows (the
    first two principal components of ``transform``), the rows of lowest log p(x), and the lines that fit it again.
    Many rows are thinned, the same way every time; the page says so.

    Parameters
    ----------
    model : a fitted estimator.
    X : the rows to report on, array, data frame or images, shape (rows, ...); NaN where a cell is missing. Best are
        rows that the fit has not seen.
    path : the file to write.
    labels : one for each row, to colour the map; without them it shows classes, or log p(x).
    findings : what was diagnosed: objects with ``name``, ``level`` ("good", "note" or "warning") and ``words``.
    unseen : whether the fit has not seen these rows; None leaves it open, and the page says so.
    learned : rows that the fit has seen: their free energies are shown beside, where the model is an energy.
    title : heading of the page.
    origin : where the rows came from, so that the page can say how to fit again.

    Returns
    -------
    The path of the file.

    Raises
    ------
    ValueError
        When the model is not fitted, the rows do not suit it, labels are too few or many, or a level is unknown.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import ravine as rv
    >>> X = np.random.default_rng(0).normal(size=(60, 3))
    >>> model = rv.FactorAnalysis(latents=1, iterations=5, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rv.report(model, X, f"{folder}/report.html").read_text()[:15]
    '<!doctype html>'
    """
    findings = list(findings)
    for finding in findings:
        one_of(f"the level of the finding {finding.name!r}", finding.level, ("good", "note", "warning"))
    text = written(look_at(model, X, labels, unseen, learned), findings, title, origin or Origin())
    write_bytes(path, text.encode())
    return Path(path)


class _Callable(types.ModuleType):
    """``ravine.report`` names this module as soon as it was imported: it can be called like the function."""

    def __call__(self, *arguments: Any, **options: Any) -> Path:
        return report(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
