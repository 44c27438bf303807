"""Save and load: arrays as safetensors, the rest as JSON, never a pickle. Reading a file runs nothing."""

from ravine._files import read_json, write_json
from ravine.checkpoint.arrays import load_arrays, load_metadata, save_arrays
from ravine.checkpoint.folder import (
    CHECKPOINT,
    MODEL,
    RECIPE,
    checkpoint_record,
    load_checkpoint,
    load_record,
    load_run,
    save_checkpoint,
    save_run,
)
from ravine.checkpoint.names import leaf_names

__all__ = [
    "CHECKPOINT",
    "MODEL",
    "RECIPE",
    "checkpoint_record",
    "leaf_names",
    "load_arrays",
    "load_checkpoint",
    "load_metadata",
    "load_record",
    "load_run",
    "read_json",
    "save_arrays",
    "save_checkpoint",
    "save_run",
    "write_json",
]
