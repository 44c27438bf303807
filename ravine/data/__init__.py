"""From files and arrays to rows: the schema of a table, readers and writers, built-in data sets.

Names load when they are first used, so that listing data sets needs neither JAX nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ravine.data.builtin import dataset_names as dataset_names
    from ravine.data.builtin import load_dataset as load_dataset
    from ravine.data.dataset import Dataset as Dataset
    from ravine.data.draws import Binarise as Binarise
    from ravine.data.draws import Dequantise as Dequantise
    from ravine.data.files import Table as Table
    from ravine.data.files import read_table as read_table
    from ravine.data.files import write_table as write_table
    from ravine.data.schema import Schema as Schema
    from ravine.data.sequences import Sequences as Sequences
    from ravine.data.sources import ArraySource as ArraySource
    from ravine.data.sources import MappedSource as MappedSource
    from ravine.data.sources import padded as padded
    from ravine.data.sources import rows as rows
    from ravine.data.table import AnySchema as AnySchema
    from ravine.data.table import TableSchema as TableSchema
    from ravine.data.table import UnseenLevel as UnseenLevel

_HOMES = {
    "AnySchema": "table",
    "ArraySource": "sources",
    "Binarise": "draws",
    "Dataset": "dataset",
    "Dequantise": "draws",
    "MappedSource": "sources",
    "Schema": "schema",
    "Sequences": "sequences",
    "Table": "files",
    "TableSchema": "table",
    "UnseenLevel": "table",
    "dataset_names": "builtin",
    "load_dataset": "builtin",
    "padded": "sources",
    "read_table": "files",
    "rows": "sources",
    "write_table": "files",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOMES)
