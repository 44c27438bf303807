"""Arrays in a safetensors file, with a JSON record and checksums in its header.

The header's metadata has one entry, ``ravine``: JSON with the format's version, the record and two SHA-256 digests,
because safetensors itself has none. ``data`` seals the bytes of the tensors, ``seal`` everything else. One entry, as
safetensors writes several in an order of chance, and the same arrays must give the same file.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree
from safetensors.numpy import save

from ravine._check import Complaint, complaint, one_line, shown
from ravine._files import LARGEST_TEXT, json_text, parse_json, reading, write_bytes
from ravine.checkpoint.names import is_key, leaf_names, named_leaves

Where = str | os.PathLike[str]

MARK, VERSION = "ravine", 1
RESTORE = "restore it from a copy, or fit and save again"
# safetensors' codes; a type that is not here is neither written nor read
_CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64",
}  # fmt: skip
_TYPES = {code: jnp.dtype(name) for name, code in _CODES.items()}


def save_arrays(path: Where, tree: PyTree, metadata: Mapping[str, Any]) -> None:
    """Write every array of a tree, and a JSON record about them, to one safetensors file; beside, then renamed.

    Raises
    ------
    ValueError
        When an array has a type that the format lacks (text, objects, complex128), or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_arrays(f"{folder}/a.safetensors", {"w": jnp.arange(3)}, {"steps": 10})
    ...     load_metadata(f"{folder}/a.safetensors")
    ...     load_arrays(f"{folder}/a.safetensors", {"w": jnp.zeros(3, int)})["w"].tolist()
    {'steps': 10}
    [0, 1, 2]
    """
    tensors = {name: _stored(name, leaf) for name, leaf in leaf_names(tree).items()}
    parts = {name: tensor.reshape(-1).view(np.uint8).data for name, tensor in tensors.items()}
    table = {name: (_CODES[tensor.dtype.name], list(tensor.shape)) for name, tensor in tensors.items()}
    head = {"format": VERSION, "record": metadata, "data": _digest(parts)}
    write_bytes(path, save(tensors, {MARK: json_text(head | {"seal": _seal(head, table)})}))


def load_metadata(path: Where) -> dict[str, Any]:
    """The JSON record of an array file; its tensors are not read. Raises like `load_arrays`."""
    with reading(path) as file:
        return _read_header(path, file).record


def load_arrays(path: Where, like: PyTree, *, partial: bool = False) -> PyTree:
    """The tree ``like`` with every array replaced by the one of the same name in the file, bit for bit.

    Parameters
    ----------
    path : a file that `save_arrays` wrote.
    like : arrays or ``jax.ShapeDtypeStruct`` (see ``eqx.filter_eval_shape``) that say which names, shapes and types
        to expect; its other leaves are kept. A numpy array comes back as a numpy array, the rest as JAX arrays.
    partial : let the file hold more leaves than ``like`` asks for.

    Raises
    ------
    ValueError
        One line that names the file: not there, damaged, of another program, of a newer Ravine, or with a leaf that
        is missing, extra, misshapen or mistyped; and when JAX would not keep the type here (float64 outside double
        precision). Nothing of the size that a damaged header claims is allocated.
    """
    with reading(path) as file:
        header = _read_header(path, file)
        _match(path, header.entries, leaf_names(like), partial)
        data = file.read(header.size)
    if len(data) != header.size:
        raise damaged(path, "it became shorter while it was read")
    parts = {name: data[entry.start : entry.stop] for name, entry in header.entries.items()}
    if _digest(parts) != header.data:
        raise damaged(path, "its numbers do not match their checksum")
    tensors = {name: _tensor(parts[name], entry) for name, entry in header.entries.items()}
    leaves, structure = named_leaves(like)
    filled = [leaf if name is None else _restored(path, name, leaf, tensors[name]) for name, leaf in leaves]
    return jax.tree_util.tree_unflatten(structure, filled)


class _Entry(NamedTuple):
    code: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{_TYPES[self.code].name} {self.shape}"


class _Header(NamedTuple):
    entries: dict[str, _Entry]
    record: dict[str, Any]
    data: str
    size: int


def _stored(name: str, leaf: Any) -> np.ndarray:
    """The leaf as safetensors may be trusted with it: contiguous, native byte order, a type it has."""
    if leaf.dtype.name not in _CODES:
        kind = "numbers or truth values of at most 64 bits"
        raise complaint(f"leaf {shown(name)}", kind, f"type {leaf.dtype}", "convert it before saving")
    array = np.asarray(leaf)
    # safetensors 0.8 writes Fortran-ordered and strided arrays wrongly; ascontiguousarray alone loses 0-d shapes
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)


def _digest(parts: Mapping[str, bytes | memoryview]) -> str:
    sha = hashlib.sha256()
    for name in sorted(parts):
        sha.update(parts[name])
    return sha.hexdigest()


def _seal(head: Mapping[str, Any], table: Mapping[str, tuple[str, list[int]]]) -> str:
    """The digest of everything in a file but the tensors' bytes, whose own digest is in ``head``."""
    return hashlib.sha256(json_text({"head": head, "table": table}).encode()).hexdigest()


def damaged(path: Where, why: object) -> Complaint:
    """What is said of a file that contradicts itself."""
    return complaint(os.fspath(path), "a whole file that Ravine wrote", f"damage ({why})", RESTORE)


def _read_header(path: Where, file: BinaryIO) -> _Header:
    """What the file says it holds, checked against itself and the file's length before anything is allocated."""
    room = os.fstat(file.fileno()).st_size - 8
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(room, LARGEST_TEXT):
        raise damaged(path, "it does not begin like a safetensors file")
    try:
        raw = parse_json(file.read(length))
        head = _head(raw)
    except ValueError as error:
        raise damaged(path, f"its header cannot be read ({error})") from None
    if head is None:
        raise complaint(os.fspath(path), "a file that Ravine wrote", "one of another program", "check the path")
    check_version(path, head.get("format"), VERSION)
    try:
        return _checked_header(raw, head, room - length)
    except ValueError as error:
        raise damaged(path, error) from None


def _head(raw: dict[str, Any]) -> dict[str, Any] | None:
    """Ravine's own entry of a header; None when another program wrote it."""
    metadata = raw.pop("__metadata__", None)
    text = metadata.get(MARK) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        return None
    head = parse_json(text.encode("utf-8", "replace"))
    if json_text(head) != text:  # an equal spelling is damage too
        raise ValueError("it is not spelled as Ravine does")
    return head


def check_version(path: Where, version: Any, known: int) -> None:
    """Refuse what is no version, or of a release after this one."""
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise damaged(path, f"its format must be a whole number from 1, got {shown(version)}")
    if version > known:
        newer = f"was written by a newer Ravine (format {version}, this one reads up to {known}): upgrade."
        raise Complaint(one_line(f"{os.fspath(path)} {newer}"))


def _checked_header(raw: dict[str, Any], head: dict[str, Any], size: int) -> _Header:
    entries = {name: _entry(name, value) for name, value in raw.items()}
    end = 0
    for start, stop in sorted((entry.start, entry.stop) for entry in entries.values()):
        if start != end:
            raise ValueError("its tensors overlap or leave holes")
        end = stop
    if end != size:
        raise ValueError(f"it should hold {end} bytes of numbers, got {size}")
    table = {name: (entry.code, list(entry.shape)) for name, entry in entries.items()}
    if head.pop("seal", None) != _seal(head, table) or not isinstance(head.get("record"), dict):
        raise ValueError("its header does not match its checksum")
    return _Header(entries, head["record"], head.get("data", ""), size)


def _entry(name: str, value: Any) -> _Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"leaf {shown(name)} is described wrongly")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in _TYPES:
        raise ValueError(f"leaf {shown(name)} is of unknown type {shown(code)}")
    if not (_sizes(shape) and _sizes(offsets) and len(offsets) == 2 and len(shape) <= 32):
        raise ValueError(f"leaf {shown(name)} has an impossible shape or place")
    if offsets[1] - offsets[0] != math.prod(shape) * _TYPES[code].itemsize:
        raise ValueError(f"leaf {shown(name)} has a place that does not fit its shape")
    return _Entry(code, tuple(shape), *offsets)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _match(path: Where, found: dict[str, _Entry], wanted: dict[str, Any], partial: bool) -> None:
    """Refuse a file whose leaves are not those that are wanted."""
    for name, leaf in wanted.items():
        expected = f"{leaf.dtype.name} {tuple(leaf.shape)}"
        if name not in found:
            raise _unlike(path, name, expected, "no such leaf")
        if str(found[name]) != expected:
            raise _unlike(path, name, expected, str(found[name]))
    for name in found:
        if name not in wanted and not partial:
            raise _unlike(path, name, "no such leaf", str(found[name]))


def _unlike(path: Where, name: str, expected: str, got: str) -> Complaint:
    do = "load it with the recipe and settings it came from"
    return complaint(f"{os.fspath(path)}, leaf {shown(name)}", expected, one_line(got, 80), do)


def _tensor(part: bytes, entry: _Entry) -> np.ndarray:
    numbers = np.frombuffer(part, np.uint8)
    # a truth value is one of two bytes, whatever the file says
    numbers = numbers != 0 if entry.code == "BOOL" else numbers.view(_TYPES[entry.code])
    return numbers.reshape(entry.shape)


def _restored(path: Where, name: str, leaf: Any, tensor: np.ndarray) -> Any:
    """The tensor as the kind of array that ``leaf`` is; a copy, so that nobody writes into the file's bytes."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return tensor.copy() if isinstance(leaf, np.ndarray) else tensor[()]
    array = jnp.array(tensor)
    if array.dtype != tensor.dtype:
        where = f"{os.fspath(path)}, leaf {shown(name)}"
        raise complaint(where, f"{tensor.dtype} kept", f"{array.dtype} from JAX", "load it in double precision")
    return jr.wrap_key_data(array, impl=_implementation(leaf.dtype)) if is_key(leaf) else array


def _implementation(dtype: Any) -> str:
    kinds = {str(jr.key(0, impl=name).dtype): name for name in ("threefry2x32", "rbg", "unsafe_rbg")}
    if str(dtype) not in kinds:
        raise complaint("random key", f"one of {', '.join(kinds)}", str(dtype), "train with one of these")
    return kinds[str(dtype)]
