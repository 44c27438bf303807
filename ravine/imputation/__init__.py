"""Holes as an analyst meets them: what is missing together, how sure a filled cell is, and completed tables to pool.

`intervals` says how far a missing cell may be from its imputation when the fitted parameters are taken as known.
`multiple_impute` draws the parameters too, so that an analysis run on every completed table and pooled by `pool` has
honest standard errors. `missing_patterns` counts which columns are missing together.
"""

from ravine.imputation.credible import Interval, cell_quantile, imputed_interval, intervals
from ravine.imputation.multiple import multiple_impute, refitted, resample
from ravine.imputation.named import named_tables
from ravine.imputation.patterns import MissingPatterns, missing_patterns
from ravine.imputation.pooling import Pooled, pool

__all__ = [
    "Interval",
    "MissingPatterns",
    "Pooled",
    "cell_quantile",
    "imputed_interval",
    "intervals",
    "missing_patterns",
    "multiple_impute",
    "named_tables",
    "pool",
    "refitted",
    "resample",
]
