"""Published data sets that Ravine does not carry: read from the folder ``RAVINE_DATA``, some from the web."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import os
from pathlib import Path

import numpy as np

from ravine._check import complaint, require, translated
from ravine.data import download
from ravine.data.dataset import Dataset, from_table
from ravine.data.files import Table, read_table

IMAGE = (28, 28)
LAROCHELLE = "static binarisation by Larochelle & Murray 2011 of MNIST by LeCun et al. 1998"


def data_folder() -> Path | None:
    """The folder that ``RAVINE_DATA`` names, or None when it is not set."""
    given = os.environ.get("RAVINE_DATA")
    if not given:
        return None
    require(os.path.isdir(given), "RAVINE_DATA", "a folder", f"{given}", "correct or unset it")
    return Path(given)


def _local(file: str, name: str) -> Path:
    """A file of the data folder that cannot be had otherwise."""
    folder = data_folder()
    if folder is None:
        raise complaint(name, f"{file} in the folder RAVINE_DATA", "RAVINE_DATA not set", "set it to that folder")
    require((folder / file).is_file(), name, f"{file} in the folder RAVINE_DATA", "no such file", "put it there")
    return folder / file


def mnist() -> Dataset:
    """Binary MNIST, 50000 / 10000 / 10000 images, in Larochelle's fixed binarisation."""
    if data_folder() is not None:
        table = read_table(_local("mnist_binarized_larochelle.npz", "mnist"))
    else:
        parts = {part: download.read_amat(download.fetch(at)) for part, at in download.BINARISED_MNIST.items()}
        table = Table(parts["x_train"], parts["x_valid"], parts["x_test"], image_shape=IMAGE)
    return from_table("mnist", table, LAROCHELLE, binarise="static")


def mnist_60k() -> Dataset:
    """The training and validation rows of `mnist` together."""
    parts = mnist()
    return dataclasses.replace(parts, name="mnist-60k", train=np.concatenate([parts.train, parts.valid]), valid=None)


def mnist_grey() -> Dataset:
    """Grey MNIST, 60000 / 10000 images of 256 levels with labels, to be binarised anew at every step."""
    if data_folder() is not None:
        table = read_table(_local("mnist.npz", "mnist-grey"))
    else:
        parts = {part: download.read_idx(download.fetch(at)) for part, at in download.MNIST.items()}
        images = [parts[part].reshape(-1, 784) for part in ("x_train", "x_test")]
        table = Table(images[0], None, images[1], (parts["y_train"], parts["y_test"]), None, IMAGE, 256)
    return from_table("mnist-grey", table, "MNIST by LeCun et al. 1998", levels=256, binarise="dynamic")


def omniglot() -> Dataset:
    """Omniglot at 28 x 28, 24345 / 8070 images, grey levels as probabilities; labels are the characters."""
    with translated("omniglot", "the arrays of omniglot_28.npz", "replace the file"):
        with np.load(_local("omniglot_28.npz", "omniglot"), allow_pickle=False) as archive:
            pick = [archive[f"iwae_size_{part}_idx"] for part in ("train", "test")]
            images, character = archive["x"].reshape(-1, 784), archive["character"]
    train, test = (images[rows] for rows in pick)
    labels = (character[pick[0]], character[pick[1]])
    hints = {"levels": 256, "binarise": "dynamic", "image_shape": IMAGE}
    return Dataset("omniglot", train, None, test, labels, hints, "Lake, Salakhutdinov & Tenenbaum 2015, resampled")


def omniglot_bits() -> Dataset:
    """Omniglot as bits, drawn once from the grey levels: one fixed binarisation."""
    grey, stream = omniglot(), np.random.default_rng(0)
    train, test = ((stream.uniform(size=x.shape) < x / 255).astype(np.uint8) for x in (grey.train, grey.test))
    hints = {"binarise": "static", "image_shape": IMAGE}
    return Dataset("omniglot-bits", train, None, test, grey.labels, hints, f"{grey.source}, drawn once as bits")


def frey() -> Dataset:
    """Frey faces, 28 x 20, 256 grey levels."""
    table = read_table(_local("frey.npz", "frey"))
    return from_table("frey", table, "Frey faces by Roweis & Ghahramani", levels=256, image_shape=(28, 20))


def debd(name: str) -> Dataset:
    """One of the binary density-estimation sets of Lowd & Davis 2010 and Van Haaren & Davis 2012."""
    table = read_table(_local(f"debd/{name}.npz", name))
    return from_table(name, table, "Lowd & Davis 2010; Van Haaren & Davis 2012", kind="binary")


def uci_regression(name: str) -> Dataset:
    """Features of a UCI regression table, the first of the fixed 90/10 splits; the target is the label."""
    with translated(name, f"the arrays of {name}.npz", "replace the file"):
        with np.load(_local(f"uci_regression/{name}.npz", name), allow_pickle=False) as archive:
            x, y = archive["x"], archive["y"]
            train, test = archive["train_idx"][0], archive["test_idx"][0]
    source = "UCI; first split of Hernandez-Lobato & Adams 2015"
    return Dataset(name, x[train], None, x[test], (y[train], y[test]), {"kind": "real"}, source)


def uci_table(name: str) -> Dataset:
    """A small UCI table without a header: the last column is the label, columns of text are left out."""
    path = _local(f"uci_tables/{name}.csv.gz", name)
    with translated(str(path), "a gzipped table", "replace the file"):
        columns = list(zip(*csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode())), strict=True))
        cells = [column for column in map(_numbers, columns[:-1]) if column is not None]
        last = _numbers(columns[-1])
        label = np.unique(columns[-1], return_inverse=True)[1] if last is None else last
        train = np.stack(cells, axis=1)
    dropped = len(columns) - 1 - len(cells)
    source = "UCI" + (f"; {dropped} column of text left out" if dropped else "")
    return Dataset(name, train, labels=(label, None), hints={"kind": "real"}, source=source)


def _numbers(column: tuple[str, ...]) -> np.ndarray | None:
    try:
        return np.array([float("nan" if cell == "?" else cell) for cell in column])
    except ValueError:
        return None
