"""A seeded generator of malformed files and folders: each is surely invalid, and each in a way that happens."""

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def _table(rng, rows=6, columns=4):
    return rng.normal(size=(rows, columns)).round(3)


def _lines(rng):
    return [",".join(map(str, row)) for row in _table(rng).tolist()]


def _text(lines, encoding="utf-8"):
    return ("\n".join(lines) + "\n").encode(encoding)


def _replaced(rng, cell):
    """Lines of numbers with one cell, not in the first line, replaced."""
    lines = _lines(rng)
    i, j = rng.integers(1, len(lines)), rng.integers(4)
    cells = lines[i].split(",")
    cells[j] = cell
    return [*lines[:i], ",".join(cells), *lines[i + 1 :]]


def _npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def _npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _parquet(**columns):
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def _png(rng, shape=(12, 12)):
    stream = io.BytesIO()
    Image.fromarray(rng.integers(256, size=shape, dtype=np.uint8)).save(stream, "png")
    return stream.getvalue()


def _cut(rng, content):
    return content[: int(len(content) * rng.uniform(0.3, 0.9))]


def _infinite(rng):
    x = _table(rng)
    x[rng.integers(6), rng.integers(4)] = rng.choice([np.inf, -np.inf])
    return x


def _columns(x):
    return {f"x{j}": x[:, j] for j in range(x.shape[1])}


def _flipped(rng, content):
    """An archive whose stored numbers no longer match their checksum."""
    middle = len(content) // 3 + int(rng.integers(20))
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def _archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _garbage(rng):
    return b"\xff\xfe\x00" + rng.bytes(int(rng.integers(1, 400)))


# name of the file -> its content, drawn anew for every file
FILES = {
    "ragged-short.csv": lambda r: _text([*_lines(r), "1,2,3"]),
    "ragged-long.csv": lambda r: _text([*_lines(r), "1,2,3,4,5"]),
    "double-comma.csv": lambda r: _text([*_lines(r), "1,,2,3,4", *_lines(r)]),
    "word.csv": lambda r: _text(_replaced(r, str(r.choice(["abc", "12a", "1.2.3", "--1", "true", "é", "0x10"])))),
    "underscore.csv": lambda r: _text(_replaced(r, f"{r.integers(1, 9)}_{r.integers(100, 999)}")),
    "infinite.csv": lambda r: _text(_replaced(r, str(r.choice(["inf", "-inf", "Infinity", "1e999"])))),
    "huge-integer.csv": lambda r: _text(_replaced(r, str(2 ** int(r.integers(60, 900)) + 1))),
    "semicolons.csv": lambda r: _text([line.replace(",", ";") for line in _lines(r)]),
    "words-in-first.csv": lambda r: _text(["1.5,male,2,3", *_lines(r)]),
    "blank-line.csv": lambda r: _text([*_lines(r), "", *_lines(r)]),
    "open-quote.csv": lambda r: _text([*_lines(r), '1,"2,3,4']),
    "nul.csv": lambda r: _text(_replaced(r, "1\0")),
    "empty.csv": lambda r: b"",
    "blank.csv": lambda r: b"\n" * int(r.integers(1, 5)),
    "header-only.csv": lambda r: b"a,b,c,d\n",
    "header-bom-only.csv": lambda r: "\ufeffgr\u00f6\u00dfe,\u9ad8\u3055\n".encode(),
    "header-twice.csv": lambda r: _text(["a,b,a,c", *_lines(r)]),
    "header-unnamed.csv": lambda r: _text([",a,b,c", *_lines(r)]),
    "header-ragged.csv": lambda r: _text(["\u03b1,\u03b2,\u03b3", *_lines(r)]),
    "utf16.csv": lambda r: _text(["a,b,c,d", *_lines(r)], "utf-16"),
    "latin1.csv": lambda r: _text(["\u00e9t\u00e9,b,c,d", *_lines(r)], "latin-1"),
    "garbage.csv": _garbage,
    "new\nline.csv": lambda r: _text([*_lines(r), "1"]),
    "plain.csv.gz": lambda r: _text(_lines(r)),
    "cut.csv.gz": lambda r: _cut(r, gzip.compress(_text(_lines(r)))),
    "ragged.csv.gz": lambda r: gzip.compress(_text([*_lines(r), "1"])),
    "empty.npy": lambda r: b"",
    "garbage.npy": _garbage,
    "cut.npy": lambda r: _cut(r, _npy(_table(r))),
    "pickle.npy": lambda r: pickle.dumps({"x": _table(r)}),
    "objects.npy": lambda r: _npy(np.array([[1.0, None], ["a", 2]], dtype=object), allow_pickle=True),
    "text.npy": lambda r: _npy(np.array([["1", "2"], ["3", "4"]])),
    "complex.npy": lambda r: _npy(_table(r).astype(complex)),
    "dates.npy": lambda r: _npy(np.zeros((3, 2), "datetime64[s]")),
    "records.npy": lambda r: _npy(np.zeros((3, 1), [("a", float), ("b", int)])),
    "huge-integer.npy": lambda r: _npy(np.array([[1, 2], [3, 2**53 + int(r.integers(1, 2**60))]])),
    "infinite.npy": lambda r: _npy(_infinite(r)),
    "one-axis.npy": lambda r: _npy(r.normal(size=7)),
    "no-axis.npy": lambda r: _npy(np.float64(3)),
    "five-axes.npy": lambda r: _npy(np.zeros((2, 1, 1, 1, 1))),
    "no-rows.npy": lambda r: _npy(np.zeros((0, 4))),
    "no-columns.npy": lambda r: _npy(np.zeros((4, 0))),
    "archive.npy": lambda r: _npz(x=_table(r)),
    "empty.npz": lambda r: b"",
    "garbage.npz": _garbage,
    "cut.npz": lambda r: _cut(r, _npz(x=_table(r))),
    "flipped.npz": lambda r: _flipped(r, _npz(x=r.normal(size=(40, 4)))),
    "array.npz": lambda r: _npy(_table(r)),
    "nothing.npz": lambda r: _archive(),
    "readme.npz": lambda r: _archive(readme="no arrays here"),
    "ambiguous.npz": lambda r: _npz(a=_table(r), b=_table(r)),
    "both.npz": lambda r: _npz(x=_table(r), x_train=_table(r)),
    "widths.npz": lambda r: _npz(x_train=_table(r), x_test=_table(r, 3, 5)),
    "labels.npz": lambda r: _npz(x=_table(r), y=np.arange(3)),
    "objects.npz": lambda r: _npz(x=np.array([[1.0, None]], dtype=object)),
    "complex.npz": lambda r: _npz(x=_table(r).astype(complex)),
    "infinite.npz": lambda r: _npz(x_train=_table(r), x_test=_infinite(r)),
    "empty.parquet": lambda r: b"",
    "garbage.parquet": _garbage,
    "cut.parquet": lambda r: _cut(r, _parquet(**_columns(_table(r)))),
    "bytes.parquet": lambda r: _parquet(a=[b"x", b"y"], b=[1.0, 2.0]),
    "durations.parquet": lambda r: _parquet(a=np.array([5], "timedelta64[s]")),
    "lists.parquet": lambda r: _parquet(a=[[1.0], [2.0, 3.0]]),
    "infinite.parquet": lambda r: _parquet(**_columns(_infinite(r))),
    "huge-integer.parquet": lambda r: _parquet(a=[1, 2**53 + 1], b=[0.5, 1.5]),
    "huge-integer-null.parquet": lambda r: _parquet(a=[None, 2**53 + 1]),
    "no-rows.parquet": lambda r: _parquet(a=np.zeros(0)),
    "no-columns.parquet": lambda r: _parquet(),
    "table.xlsx": _garbage,
    "table": lambda r: _text(_lines(r)),
}

# name of the folder -> files in it
FOLDERS = {
    "no-files": lambda r: {},
    "no-images": lambda r: {"readme.txt": b"none", "rows.csv": _text(_lines(r))},
    "mixed-sizes": lambda r: {"a.png": _png(r), "b.png": _png(r, (12, int(r.integers(13, 20))))},
    "grey-and-colour": lambda r: {"a.png": _png(r), "b.png": _png(r, (12, 12, 3))},
    "cut-image": lambda r: {"a.png": _png(r), "b.png": _cut(r, _png(r, (40, 40)))},
    "not-an-image": lambda r: {"a.jpg": _garbage(r)},
    "empty-image": lambda r: {"a.gif": b""},
    "transparent": lambda r: {"a.png": _png(r, (12, 12, 4))},
}


def bad_files(folder, n, seed):
    """Write ``n`` malformed files and folders below ``folder``; the same seed gives the same ones.

    One path in the list does not exist at all.
    """
    rng = np.random.default_rng(seed)
    makers = [*FILES, *FOLDERS]
    paths = [Path(folder) / "absent.csv"]
    for i in range(n - 1):
        place = Path(folder) / str(i)
        place.mkdir(parents=True)
        paths.append(_made(place, makers[i % len(makers)], rng))
    return paths[:n]


def _made(place, name, rng):
    path = place / name
    if name in FILES:
        path.write_bytes(FILES[name](rng))
        return path
    path.mkdir()
    for image, content in FOLDERS[name](rng).items():
        (path / image).write_bytes(content)
    return path
