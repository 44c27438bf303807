"""Rubin's rules: one answer, with an honest standard error, from the same analysis of several completed tables."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from ravine._check import require, shown


class Pooled(NamedTuple):
    """Estimates of an analysis over several completed tables, combined; every field has the shape of one estimate.

    ``missing_information`` is the share of the information that the holes took, lambda = (1 + 1/m) B / T of Rubin
    1987. ``freedom`` are the degrees of freedom of Student's t, infinite when the tables agree.
    """

    estimate: np.ndarray
    standard_error: np.ndarray
    freedom: np.ndarray
    missing_information: np.ndarray

    def interval(self, level: float = 0.95) -> np.ndarray:
        """Confidence limits by Student's t, shape (2, ...)."""
        require(0 < level < 1, "level", "a probability between 0 and 1", shown(level), "say 0.95")
        reach = student.ppf(0.5 + 0.5 * level, self.freedom) * self.standard_error
        return np.stack([self.estimate - reach, self.estimate + reach])


def pool(estimates: Any, variances: Any, freedom: Any = None) -> Pooled:
    r"""Combine the same analysis of m completed tables by Rubin's rules.

    With W the mean of the variances and B the variance of the estimates, the total variance is

    .. math:: T = W + (1 + 1/m) B, \qquad \lambda = (1 + 1/m) B / T, \qquad \nu_m = (m - 1) / \lambda^2

    (Rubin 1987, equations 3.1.5 to 3.1.7). Given the degrees of freedom :math:`\nu_c` of the analysis of a complete
    table, those of the t interval are :math:`1 / (1/\nu_m + 1/\nu_o)` with
    :math:`\nu_o = (1 - \lambda)\,\nu_c\,(\nu_c + 1)/(\nu_c + 3)` (Barnard & Rubin 1999, Biometrika 86, 948-955).

    Parameters
    ----------
    estimates : shape (m, ...), m at least 2; a row for each completed table.
    variances : their squared standard errors, of the same shape.
    freedom : degrees of freedom with complete data, such as n - p of a regression; None when n is large.

    Raises
    ------
    ValueError
        When the shapes differ, there is one table only, or a variance is negative or not a number.

    Examples
    --------
    >>> pooled = pool([1.0, 2.0, 3.0], [0.5, 0.5, 0.5])
    >>> float(pooled.estimate), round(float(pooled.standard_error), 4), round(float(pooled.missing_information), 4)
    (2.0, 1.354, 0.7273)
    """
    q, u = np.asarray(estimates, float), np.asarray(variances, float)
    m, do = len(q) if q.ndim else 0, "give one estimate and one variance for each completed table"
    expected, got = "two arrays of one shape (m, ...), m > 1", f"{q.shape} and {u.shape}"
    require(q.shape == u.shape and m > 1, "pool", expected, got, do)
    require(bool(np.isfinite(q).all() and (u >= 0).all()), "pool", "finite estimates and variances >= 0", "others", do)
    between = (1 + 1 / m) * q.var(axis=0, ddof=1)
    total = u.mean(axis=0) + between
    share = between / np.where(total > 0, total, 1)
    with np.errstate(divide="ignore"):
        of_draws = (m - 1) / share**2
        if freedom is not None:
            complete = np.asarray(freedom, float)
            observed = (1 - share) * complete * (complete + 1) / (complete + 3)
            of_draws = 1 / (1 / of_draws + 1 / observed)
    return Pooled(q.mean(axis=0), np.sqrt(total), of_draws, share)
