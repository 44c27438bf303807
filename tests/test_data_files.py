"""Files: what is written comes back to the bit, and every format is read the same way."""

import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ravine._check import Complaint
from ravine.data import load_dataset, read_table, write_table
from ravine.data.images import read_images

NAN = float("nan")
RNG = np.random.RandomState(0)
REAL = RNG.normal(size=(7, 3)) * 10.0 ** RNG.randint(-300, 300, size=(7, 3))
HOLES = np.where(RNG.uniform(size=(7, 3)) < 0.4, NAN, REAL)

FORMATS = (".csv", ".csv.gz", ".parquet", ".npy", ".npz")
KEEPS_TYPE = (".parquet", ".npy", ".npz")
KEEPS_NAMES = (".csv", ".csv.gz", ".parquet", ".npz")
ARRAYS = {
    "doubles": REAL,
    "holes": HOLES,
    "singles": RNG.normal(size=(5, 2)).astype(np.float32),
    "single holes": np.array([[NAN, 0.1]], np.float32),
    "extremes": np.array([[5e-324, -0.0], [1.7976931348623157e308, 0.1]]),
    "integers": np.array([[2**53, -(2**53)], [0, 7]]),
    "bytes": RNG.randint(256, size=(4, 5)).astype(np.uint8),
    "one column": HOLES[:, :1],
    "one row": HOLES[:1],
    "all missing": np.full((3, 2), NAN),
    "columns first": np.asfortranarray(REAL),
}
NAMES = ("größe", 'a "quoted", name', "高さ", "d", "e")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("named", [False, True])
def test_round_trip_to_the_bit(tmp_path, suffix, kind, named):
    array, path = ARRAYS[kind], tmp_path / f"table{suffix}"
    names = NAMES[: array.shape[1]] if named else None
    write_table(path, array, names)
    table = read_table(path)
    want = array if suffix in KEEPS_TYPE else array.astype(np.float64)
    assert table.x.dtype == want.dtype and table.x.shape == want.shape
    assert np.array_equal(np.isnan(table.x), np.isnan(want))
    both = np.where(np.isnan(want), 0, want), np.where(np.isnan(table.x), 0, table.x)
    assert both[0].tobytes() == both[1].tobytes()
    assert table.names == (names if suffix in KEEPS_NAMES else None) or (suffix == ".parquet" and not named)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_booleans_become_bits(tmp_path, suffix):
    write_table(tmp_path / f"t{suffix}", np.eye(3, dtype=bool), ("a", "b", "c"))
    assert np.array_equal(read_table(tmp_path / f"t{suffix}").x, np.eye(3))


def test_one_number_a_row(tmp_path):
    write_table(tmp_path / "t.csv", np.arange(3.0), ["log_likelihood"])
    assert (tmp_path / "t.csv").read_text() == "log_likelihood\n0.0\n1.0\n2.0\n"


# text of a .csv file -> (names, numbers)
TEXTS = {
    "header": ("a,b\n1,2\n", ("a", "b"), [[1, 2]]),
    "no header": ("1,2\n3,4\n", None, [[1, 2], [3, 4]]),
    "no line end": ("a\n1", ("a",), [[1]]),
    "windows line ends": ("a,b\r\n1,2\r\n", ("a", "b"), [[1, 2]]),
    "byte order mark": ("\ufeffa,b\n1,2\n", ("a", "b"), [[1, 2]]),
    "byte order mark and numbers": ("\ufeff1,2\n", None, [[1, 2]]),
    "unicode": ("größe,高さ\n1,2\n", ("größe", "高さ"), [[1, 2]]),
    "quoted": ('"a, b",c\n"1",2\n', ("a, b", "c"), [[1, 2]]),
    "missing": ("a,b,c,d,e\n,NA,NaN,?,nan\n1,2,3,4,5\n", tuple("abcde"), [[NAN] * 5, [1, 2, 3, 4, 5]]),
    "missing first": ("?,1\nNA,2\n", None, [[NAN, 1], [NAN, 2]]),
    "spaces": (" a , b\n 1 , NA \n", ("a", "b"), [[1, NAN]]),
    "signs and exponents": ("+1,-2e-3,.5\n", None, [[1, -2e-3, 0.5]]),
    "years as names": ("id,2019,2020\n1,2,3\n", ("id", "2019", "2020"), [[1, 2, 3]]),
    "sodium": ("RI,NA,Mg\n1,2,3\n", ("RI", "NA", "Mg"), [[1, 2, 3]]),
    "empty lines at the end": ("1,2\n\n\n", None, [[1, 2]]),
    "long numbers": ("0.1234567890123456789,100000000000000000000\n", None, [[0.12345678901234568, 1e20]]),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_comma_separated_text(tmp_path, kind):
    text, names, numbers = TEXTS[kind]
    (tmp_path / "t.CSV").write_bytes(text.encode())
    table = read_table(tmp_path / "t.CSV")
    assert table.names == names
    np.testing.assert_array_equal(table.x, numbers)


def test_text_agrees_with_pandas(tmp_path):
    pd.DataFrame(HOLES, columns=list("abc")).to_csv(tmp_path / "t.csv", index=False)
    assert read_table(tmp_path / "t.csv").x.tobytes() == np.where(np.isnan(HOLES), NAN, HOLES).tobytes()


def test_parquet_of_pandas(tmp_path):
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": pd.array([1, None], "Int64"), "d": [True, False]})
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.names == tuple("abcd")
    np.testing.assert_array_equal(table.x, [[1, 0.5, 1, 1], [2, NAN, NAN, 0]])
    frame.set_index(pd.Index([7, 9])).to_parquet(tmp_path / "u.parquet")
    assert read_table(tmp_path / "u.parquet").names == tuple("abcd")


@pytest.mark.parametrize("dtype", [">f8", ">i4", "<f2", np.longdouble])
def test_unusual_types_become_usual(tmp_path, dtype):
    np.save(tmp_path / "t.npy", np.array([[1, 2], [3, 4]], dtype))
    table = read_table(tmp_path / "t.npy")
    assert table.x.dtype.isnative and table.x.dtype in (np.float32, np.float64, np.int32)
    np.testing.assert_array_equal(table.x, [[1, 2], [3, 4]])


def test_images_in_an_array_are_flattened(tmp_path):
    images = RNG.randint(256, size=(5, 4, 3)).astype(np.uint8)
    write_table(tmp_path / "t.npy", images)
    table = read_table(tmp_path / "t.npy")
    assert table.image_shape == (4, 3) and table.levels == 256
    assert np.array_equal(table.x, images.reshape(5, 12))
    write_table(tmp_path / "t.npy", images % 2)
    assert read_table(tmp_path / "t.npy").levels is None
    assert load_dataset(tmp_path / "t.npy").hints == {"image_shape": (4, 3)}


@pytest.mark.parametrize("shape", [(50, 6), (50, 2, 3)])
def test_large_arrays_are_mapped(tmp_path, shape):
    array = RNG.normal(size=shape)
    write_table(tmp_path / "t.npy", array)
    table = read_table(tmp_path / "t.npy", limit=1000)
    assert isinstance(table.x, np.memmap) and not table.x.flags.writeable
    assert table.x.tobytes() == array.tobytes() and table.x.shape == (50, 6)
    assert not isinstance(read_table(tmp_path / "t.npy").x, np.memmap)


# arrays of an .npz file -> (x, valid, test, labels) by name
ARCHIVES = {
    "x": ({"x": 1}, ("x", None, None, None)),
    "alone": ({"whatever": 1}, ("whatever", None, None, None)),
    "capital": ({"X": 1, "Y": 0}, ("X", None, None, ("Y", None))),
    "x among others": ({"x": 1, "train_idx": 3}, ("x", None, None, None)),
    "split": ({"x_train": 1, "x_test": 2}, ("x_train", None, "x_test", None)),
    "three": ({"x_train": 1, "x_valid": 2, "x_test": 3}, ("x_train", "x_valid", "x_test", None)),
    "labels": (
        {"x_train": 1, "y_train": 0, "x_test": 2, "y_test": 0},
        ("x_train", None, "x_test", ("y_train", "y_test")),
    ),
    "training labels": ({"x_train": 1, "y_train": 0, "x_test": 2}, ("x_train", None, "x_test", ("y_train", None))),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_which_arrays_of_an_archive(tmp_path, kind):
    content, (x, valid, test, labels) = ARCHIVES[kind]
    arrays = {name: np.full((4, 2), seed) if seed else np.arange(4) for name, seed in content.items()}
    np.savez(tmp_path / "t.npz", **arrays)
    table = read_table(tmp_path / "t.npz")
    for got, want in zip((table.x, table.valid, table.test), (x, valid, test), strict=True):
        assert (got is None) == (want is None) and (got is None or np.array_equal(got, arrays[want]))
    assert (table.labels is None) == (labels is None)
    for got, want in zip(table.labels or (), labels or (), strict=True):
        assert (got is None) == (want is None) and (got is None or np.array_equal(got, arrays[want]))


def test_labels_in_words(tmp_path):
    np.savez(tmp_path / "t.npz", x=np.eye(3), y=np.array(["b", "a", "b"]))
    assert read_table(tmp_path / "t.npz").labels[0].tolist() == [1, 0, 1]


# how images are saved -> (mode, shape of the array that is read)
IMAGES = {
    "grey.png": ("L", (6, 5)),
    "colour.png": ("RGB", (6, 5, 3)),
    "opaque.png": ("RGBA", (6, 5, 3)),
    "grey.bmp": ("L", (6, 5)),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_a_folder_of_images(tmp_path, kind):
    mode, shape = IMAGES[kind]
    pixels = RNG.randint(256, size=(3, *shape)).astype(np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).convert(mode).save(tmp_path / f"{2 - i}.{kind.split('.')[1]}")
    (tmp_path / "notes.txt").write_text("passed over")
    (tmp_path / "deeper").mkdir()
    assert np.array_equal(read_images(tmp_path), pixels[::-1])
    data = load_dataset(tmp_path)
    assert data.hints == {"image_shape": shape, "levels": 256}
    assert data.train.shape == (3, int(np.prod(shape)))


@pytest.mark.parametrize("suffix, package", [(".parquet", "pyarrow.parquet"), ("", "PIL")])
def test_a_missing_library_is_named(tmp_path, monkeypatch, suffix, package):
    path = tmp_path / f"t{suffix}"
    if suffix:
        write_table(path, np.eye(2))
    else:
        path.mkdir()
        (path / "a.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"pip install 'ravine\[data\]'"):
        read_table(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failed_write_leaves_the_old_file(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"t{suffix}"
    write_table(path, np.eye(2))
    before = path.read_bytes()

    def crash(kind, stream, array, names):
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(sys.modules["ravine.data.files"], "_write", crash)
    with pytest.raises(ValueError, match="disk full"):
        write_table(path, np.ones((3, 2)))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(Complaint, match="names a header can hold"):
        write_table(tmp_path / "t.csv", np.eye(2), ("1", "2"))
    with pytest.raises(Complaint, match="ends in .csv, .csv.gz"):
        write_table(tmp_path / "t.txt", np.eye(2))
    with pytest.raises(Complaint, match="expected a place that can be written"):
        write_table(tmp_path / "absent" / "t.csv", np.eye(2))
    with pytest.raises(Complaint, match="expected 2 names, got 3"):
        write_table(tmp_path / "t.npz", np.eye(2), ("a", "b", "c"))
    assert list(tmp_path.iterdir()) == []


def test_written_twice_is_the_same_file(tmp_path):
    for suffix in FORMATS[:2]:
        for name in ("a", "b"):
            write_table(tmp_path / f"{name}{suffix}", HOLES, tuple("abc"))
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


MIXED = "name,age,joined,ok\nAnna,31.5,2020-02-01,yes\n,,2021-03-04,no\nBob,NA,,yes\n"


def mixed_frame() -> pd.DataFrame:
    names = np.array(["Anna", None, "Bob"], object)
    joined = pd.to_datetime(["2020-02-01", "2021-03-04", None])
    ok = np.array(["yes", "no", "yes"], object)
    return pd.DataFrame({"name": names, "age": [31.5, np.nan, np.nan], "joined": joined, "ok": ok})


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_text_and_dates_are_a_data_frame_there_and_back(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    write_table(path, mixed_frame())
    table = read_table(path)
    assert table.names == ("name", "age", "joined", "ok")
    pd.testing.assert_frame_equal(table.x, mixed_frame(), check_dtype=False)
    assert table.x["joined"].dtype.kind == "M" and table.x["age"].dtype.kind == "f"


def test_a_table_written_by_hand_is_read(tmp_path):
    (tmp_path / "t.csv").write_text(MIXED)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv").x, mixed_frame(), check_dtype=False)


def test_text_goes_into_no_format_of_numbers(tmp_path):
    with pytest.raises(Complaint, match="expected a .csv or .parquet file"):
        write_table(tmp_path / "t.npy", mixed_frame())
    assert list(tmp_path.iterdir()) == []
