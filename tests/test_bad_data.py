"""Whatever is wrong with a file, the user gets one line that says so."""

import warnings

import numpy as np
import pytest
from bad_files import FILES, FOLDERS, bad_files

from ravine.data import load_dataset

SEEDS = (0, 1)
OURS = (TypeError, AttributeError, NameError, LookupError, AssertionError)  # what a slip in Ravine itself would raise


def outcome(path):
    """None when the error is as it should be, else what happened instead."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_dataset(path)
    except ValueError as error:
        text = str(error)
        told = all(word in text for word in ("expected ", ", got ", "; "))
        told = told and not isinstance(error.__cause__, OURS)
        good = told and text.isprintable() and len(text) <= 600 and "Traceback" not in text
        return None if good else f"{path}: {text!r}"
    except BaseException as error:
        return f"{path}: {type(error).__name__}: {error}"
    return f"{path}: no error"


@pytest.mark.parametrize("seed", SEEDS)
def test_every_malformed_file_is_one_line(tmp_path, seed):
    paths = bad_files(tmp_path, 200, seed)
    assert len(set(paths)) == 200
    assert len({path.name for path in paths}) == len(FILES) + len(FOLDERS) + 1
    assert [bad for bad in map(outcome, paths) if bad] == []


def test_generator_repeats_itself(tmp_path):
    first, second = (bad_files(tmp_path / name, 90, 5) for name in ("a", "b"))
    files = [
        (p, q) for p, q in zip(first, second, strict=True) if p.is_file() and p.suffix != ".gz" and p.suffix != ".npz"
    ]
    assert len(files) > 50
    assert all(p.read_bytes() == q.read_bytes() for p, q in files)


def test_message_names_the_line_and_the_column(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("age,height\n1,2\n3,tall\n")
    with pytest.raises(ValueError, match=r"t\.csv, line 3, column 'height': expected a number, got 'tall'; "):
        load_dataset(path)
    path.write_text("age,height\n1,2\n3\n")
    with pytest.raises(ValueError, match=r"line 3: expected 2 values, got 1; "):
        load_dataset(path)
    np.save(tmp_path / "t.npy", np.array([[0.0, 1.0], [2.0, np.inf]]))
    with pytest.raises(ValueError, match=r"expected finite numbers, got inf at \[1, 1\]; write NaN if it is missing"):
        load_dataset(tmp_path / "t.npy")
    np.savez(tmp_path / "t.npz", left=np.eye(2), right=np.eye(2))
    with pytest.raises(ValueError, match=r"got arrays 'left', 'right'; "):
        load_dataset(tmp_path / "t.npz")


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    np.save(tmp_path / "trap.npy", np.array([[Trap()]], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "trap.npz", x=np.array([[Trap()]], dtype=object))
    for name in ("trap.npy", "trap.npz"):
        assert outcome(tmp_path / name) is None
    assert not (tmp_path / "sprung").exists()
