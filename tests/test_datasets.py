"""Built-in sets: numbers that must not drift, and downloads that are believed only when their checksum is right."""

import functools
import gzip
import hashlib
import http.server
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import LIMIT
from scipy import stats

from ravine.data import Dataset, Schema, dataset_names, download, generated, load_dataset
from ravine.data.builtin import DEBD, REGRESSION, TABLES
from ravine.data.rectangles import rectangles

DATA = os.environ.get("RAVINE_DATA")
with_data = pytest.mark.skipif(not DATA, reason="the environment variable RAVINE_DATA names no folder of data")

# name -> (rows of training, columns, rows of test, how the schema says it is seen)
CARRIED = {
    "digits": (1797, 64, None, "64 cells as 17-level counts"),
    "digits-binary": (1797, 64, None, "64 binary cells (1 where at least 8)"),
    "iris": (150, 4, None, "4 real cells"),
    "wine": (178, 13, None, "13 real cells"),
    "breast-cancer": (569, 30, None, "30 real cells"),
    "diabetes": (442, 10, None, "10 real cells"),
    "fa-tutorial": (1000, 3, 1000, "3 real cells"),
    "moons": (1000, 2, 1000, "2 real cells"),
    "pinwheel": (1000, 2, 1000, "2 real cells"),
    "rect": (1200, 784, 50_000, "784 binary cells"),
}
KEPT_ELSEWHERE = {
    "mnist": (50_000, 784, 10_000, "784 binary cells (static binarisation)"),
    "mnist-60k": (60_000, 784, 10_000, "784 binary cells (static binarisation)"),
    "mnist-grey": (60_000, 784, 10_000, "784 binary cells (dynamic binarisation of 256 levels)"),
    "omniglot": (24_345, 784, 8_070, "784 binary cells (dynamic binarisation of 256 levels)"),
    "omniglot-bits": (24_345, 784, 8_070, "784 binary cells (static binarisation)"),
    "accidents": (12_758, 111, 2_551, "111 binary cells"),
    "nltcs": (16_181, 16, 3_236, "16 binary cells"),
    "yacht": (277, 6, 31, "6 real cells"),
    "abalone": (4_177, 7, None, "7 real cells"),
    "sonar": (208, 60, None, "60 real cells"),
}


def check(name, table):
    rows, columns, test_rows, words = table[name]
    data = load_dataset(name)
    assert data.name == name and data.source
    assert data.train.shape == (rows, columns)
    assert (None if data.test is None else data.test.shape) == (None if test_rows is None else (test_rows, columns))
    for label, split in zip(data.labels or (), (data.train, data.test), strict=False):
        assert label is None or label.shape == (len(split),)
    schema = Schema.infer(data.train, **data.hints)
    assert schema.describe() == words
    for split in (data.train[:50], data.valid, data.test):
        if split is not None:
            schema.encode(split[:50], "float32")


@pytest.mark.parametrize("name", CARRIED)
def test_carried_sets(name, monkeypatch):
    monkeypatch.delenv("RAVINE_DATA", raising=False)
    check(name, CARRIED)
    assert load_dataset(name).checksum == load_dataset(name).checksum


@with_data
@pytest.mark.parametrize("name", KEPT_ELSEWHERE)
def test_sets_kept_elsewhere(name):
    check(name, KEPT_ELSEWHERE)


@with_data
@pytest.mark.parametrize("name", [*DEBD, *REGRESSION, *TABLES])
def test_families_have_the_columns_they_say(name):
    columns = (DEBD | REGRESSION | TABLES)[name]
    data = load_dataset(name)
    assert data.train.shape[1] == columns and dataset_names()[name].startswith(f"{columns} ")


def test_factor_analysis_data_are_those_of_the_tutorial():
    """The true model's mean evidence on these very rows, computed elsewhere from the tutorial's own code."""
    data, loading = generated.fa_tutorial(), np.array(generated.LOADING)
    law = stats.multivariate_normal(np.zeros(3), loading @ loading.T + np.diag(generated.NOISE) ** 2)
    assert abs(law.logpdf(data.test).mean() - -3.970451758801384) < 1e-9
    assert abs(law.logpdf(data.train).mean() - -3.934836900537360) < 1e-9


def test_moons_and_arms_lie_where_they_should():
    moons, arms = load_dataset("moons"), load_dataset("pinwheel")
    centre = np.array([[0.0, 0.0], [1.0, 0.5]])[moons.labels[0]]
    assert abs(np.linalg.norm(moons.train - centre, axis=1).mean() - 1.0) < 0.02
    middle = np.stack([arms.train[arms.labels[0] == k].mean(axis=0) for k in range(5)])
    turned = np.angle((middle[1:] @ [1, 1j]) / (middle[:-1] @ [1, 1j]))
    np.testing.assert_allclose(turned, 2 * np.pi / 5, atol=0.1)


def test_rectangles_are_outlines_of_the_size_that_the_label_says():
    """Every row is drawn again from its ends; shares within 4.5 standard errors of those of uniform sizes."""
    images, wide = rectangles(20_000, side=9, seed=4)
    lines, columns = images.any(axis=2), images.any(axis=1)
    top, left = lines.argmax(axis=1), columns.argmax(axis=1)
    high, broad = lines.sum(axis=1), columns.sum(axis=1)
    for image, t, x, h, w in list(zip(images, top, left, high, broad, strict=True))[:500]:
        drawn = np.zeros((9, 9), int)
        drawn[t : t + h, x : x + w] = 1
        drawn[t + 1 : t + h - 1, x + 1 : x + w - 1] = 0
        np.testing.assert_array_equal(image, drawn)
    assert (np.abs(high - broad) >= 3).all() and ((broad > high) == (wide == 1)).all()
    pairs, counts = np.unique(np.stack([high, broad]), axis=1, return_counts=True)
    share = 1 / 42  # of 81 pairs, 9 are equal, 16 differ by 1, 14 by 2
    assert pairs.shape[1] == 42 and np.abs(counts / 20_000 - share).max() < LIMIT * np.sqrt(share / 20_000)
    some = (high == 4) & (broad == 1)
    places = np.bincount(6 * left[some] + top[some], minlength=54)
    assert (places > 0).all() and stats.chisquare(places).pvalue > 1e-5
    assert (rectangles(3, seed=4)[0] != rectangles(3, seed=5)[0]).any()


def test_the_set_of_rectangles_is_always_the_same():
    data = load_dataset("rect")
    assert data.checksum[:16] == "e690c01520f05d19"
    assert [int(label.sum()) for label in data.labels] == [596, 25_092]


def test_checksum_sees_every_cell():
    data = load_dataset("iris")
    changed = data.train.copy()
    changed[-1, -1] += 1e-12
    assert type(data)("iris", changed).checksum != data.checksum
    assert type(data)("other", data.train.copy(order="F")).checksum == data.checksum


def test_names_have_one_line_each():
    names = dataset_names()
    assert set(CARRIED) | set(KEPT_ELSEWHERE) <= set(names)
    assert all(words and "\n" not in words for words in names.values())


@pytest.mark.parametrize("name, words", [("irsi", "perhaps 'iris' was meant"), ("no/such/place", "check the path")])
def test_unknown_names(name, words):
    with pytest.raises(ValueError, match=words):
        load_dataset(name)


def test_sets_that_need_the_folder_say_so(monkeypatch, tmp_path):
    monkeypatch.delenv("RAVINE_DATA", raising=False)
    with pytest.raises(
        ValueError, match="nltcs: expected debd/nltcs.npz in the folder RAVINE_DATA, got RAVINE_DATA not"
    ):
        load_dataset("nltcs")
    monkeypatch.setenv("RAVINE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="got no such file; put it there"):
        load_dataset("mnist")
    monkeypatch.setenv("RAVINE_DATA", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="RAVINE_DATA: expected a folder"):
        load_dataset("mnist")


@pytest.mark.slow
def test_listing_loads_no_heavy_library():
    heavy = ("jax", "sklearn", "pandas", "PIL", "pyarrow", "equinox", "scipy")
    code = f"import sys, ravine.data as d; d.dataset_names(); d.read_table; assert not set({heavy}) & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    code = (
        "import sys, ravine.data as d; d.Schema; assert not {'sklearn', 'pandas', 'PIL', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# --- downloads, from this very machine -------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.asked.append(self.path)


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A web server on the loopback interface: its folder, its address, and what it was asked for."""
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}", server.asked
    server.shutdown()
    thread.join()
    server.server_close()


CONTENT = b"0 1 1 0\n" * 1000


def remote(urls, content=CONTENT, name="bits.amat"):
    return download.Remote(name, tuple(urls), hashlib.sha256(content).hexdigest(), len(content))


def test_a_download_is_kept_and_not_repeated(web, tmp_path):
    folder, address, asked = web
    (folder / "bits.amat").write_bytes(CONTENT)
    for _ in range(2):
        path = download.fetch(remote([f"{address}/bits.amat"]), tmp_path / "cache" / "deep")
        assert path.read_bytes() == CONTENT
    assert len(asked) == 1 and [p.name for p in path.parent.iterdir()] == ["bits.amat"]


def test_a_packed_download_is_unpacked(web, tmp_path):
    folder, address, _ = web
    (folder / "bits.amat.gz").write_bytes(gzip.compress(CONTENT))
    assert download.fetch(remote([f"{address}/bits.amat.gz"]), tmp_path / "cache").read_bytes() == CONTENT


def test_a_damaged_copy_is_fetched_again(web, tmp_path):
    folder, address, asked = web
    (folder / "bits.amat").write_bytes(CONTENT)
    (tmp_path / "bits.amat").write_bytes(CONTENT[:-1] + b"1")
    assert download.fetch(remote([f"{address}/bits.amat"]), tmp_path).read_bytes() == CONTENT
    assert len(asked) == 1


# what the server has -> what the line says
SERVED = {
    "other content": ("bits.amat", CONTENT[::-1], "expected SHA-256"),
    "half": ("bits.amat", CONTENT[:100], "expected SHA-256"),
    "more": ("bits.amat", CONTENT * 300, "expected 8000 bytes, got more"),
    "nothing": ("other", b"", "404"),
    "half packed": ("bits.amat.gz", gzip.compress(CONTENT)[:-9], "Compressed file ended"),
    "not packed": ("bits.amat.gz", CONTENT, "Not a gzipped file"),
    "a bomb": ("bits.amat.gz", gzip.compress(bytes(2**24)), "expected 8000 bytes, got more"),
}


@pytest.mark.parametrize("kind", SERVED)
def test_a_wrong_download_is_refused(web, tmp_path, kind):
    folder, address, asked = web
    name, content, words = SERVED[kind]
    (folder / name).write_bytes(content)
    wanted = name if name.startswith("bits") else "bits.amat"
    with pytest.raises(ValueError, match=words) as caught:
        download.fetch(remote([f"{address}/{wanted}"]), tmp_path / "cache")
    line = str(caught.value)
    assert "set RAVINE_DATA to a folder" in line and "\n" not in line
    assert list((tmp_path / "cache").iterdir()) == [] and asked


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_second_home_is_tried(web, tmp_path):
    folder, address, _ = web
    (folder / "bits.amat").write_bytes(CONTENT)
    urls = [f"http://127.0.0.1:{closed_port()}/bits.amat", f"{address}/bits.amat"]
    assert download.fetch(remote(urls), tmp_path).read_bytes() == CONTENT


def idx(array):
    return struct.pack(f">{array.ndim + 1}i", 2048 + array.ndim, *array.shape) + array.tobytes()


def amat(bits):
    return "".join(" ".join(map(str, row)) + "\n" for row in bits.tolist()).encode()


@pytest.fixture
def small_homes(web, tmp_path, monkeypatch):
    """The MNIST sets with a few rows each, at home on this machine."""
    folder, address, _ = web
    rng = np.random.RandomState(0)
    bits = {part: rng.randint(2, size=(5, 784)).astype(np.uint8) for part in ("x_train", "x_valid", "x_test")}
    grey = {part: rng.randint(256, size=(6, 28, 28)).astype(np.uint8) for part in ("x_train", "x_test")}
    grey |= {part: rng.randint(10, size=6).astype(np.uint8) for part in ("y_train", "y_test")}
    for table, arrays, content, end in (("BINARISED_MNIST", bits, amat, ""), ("MNIST", grey, idx, ".gz")):
        homes = {part: remote([f"{address}/{part}{end}"], content(a), f"{part}.{table}") for part, a in arrays.items()}
        monkeypatch.setattr(download, table, homes)
    monkeypatch.delenv("RAVINE_DATA", raising=False)
    monkeypatch.setenv("RAVINE_CACHE", str(tmp_path / "cache"))

    def serve():
        for part, a in bits.items():
            (folder / part).write_bytes(amat(a))
        for part, a in grey.items():
            (folder / f"{part}.gz").write_bytes(gzip.compress(idx(a)))
        return bits, grey

    return serve


@pytest.mark.slow
@with_data
def test_bits_of_omniglot_are_drawn_once_from_its_grey_levels():
    grey, bits = load_dataset("omniglot"), load_dataset("omniglot-bits")
    assert (bits.train == load_dataset("omniglot-bits").train).all()
    for levels, drawn in ((grey.train, bits.train), (grey.test, bits.test)):
        p = levels / 255
        assert (drawn[p == 0] == 0).all() and (drawn[p == 1] == 1).all() and set(np.unique(drawn)) == {0, 1}
        lighter = p < 0.5  # the total alone would not tell a draw from its mirror image
        for some in (lighter, ~lighter):
            off = (drawn[some] - p[some]).sum() / np.sqrt((p * (1 - p))[some].sum())
            assert abs(off) < LIMIT


def test_mnist_from_its_homes(small_homes):
    bits, grey = small_homes()
    binary, levels = load_dataset("mnist"), load_dataset("mnist-grey")
    for got, part in ((binary.train, "x_train"), (binary.valid, "x_valid"), (binary.test, "x_test")):
        assert np.array_equal(got, bits[part])
    for got, part in ((levels.train, "x_train"), (levels.test, "x_test")):
        assert np.array_equal(got, grey[part].reshape(6, 784))
    assert np.array_equal(levels.labels, [grey["y_train"], grey["y_test"]])
    assert binary.hints == {"image_shape": (28, 28), "binarise": "static"}
    assert levels.hints == {"image_shape": (28, 28), "levels": 256, "binarise": "dynamic"}


@pytest.mark.parametrize("name", ["mnist", "mnist-grey"])
def test_offline_is_one_line(small_homes, name):
    with pytest.raises(ValueError, match="set RAVINE_DATA to a folder") as caught:
        load_dataset(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08\x03", idx(np.zeros((2, 3, 3), np.uint8))[:-1], b"\0\0\x08\xff" + bytes(40), bytes(1568)]
)
def test_damaged_images_are_refused(tmp_path, content):
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(ValueError, match="expected an IDX file"):
        download.read_idx(tmp_path / "images")
    with pytest.raises(ValueError, match="expected rows of 784 digits"):
        download.read_amat(tmp_path / "images")


@with_data
def test_checksums_are_those_of_the_sets_themselves():
    """Our copies, written in the formats of their homes, have the checksums a download must have."""
    with np.load(os.path.join(DATA, "mnist.npz")) as grey:
        contents = {download.MNIST[part]: idx(grey[part]) for part in download.MNIST}
    with np.load(os.path.join(DATA, "mnist_binarized_larochelle.npz")) as bits:
        for part, home in download.BINARISED_MNIST.items():
            digits = bits[part].reshape(-1, 784)
            text = np.full((len(digits), 1568), ord(" "), np.uint8)
            text[:, ::2], text[:, -1] = digits + ord("0"), ord("\n")
            contents[home] = text.tobytes()
    for home, content in contents.items():
        assert (len(content), hashlib.sha256(content).hexdigest()) == (home.size, home.sha256)


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/bits.amat"
        started = time.monotonic()
        with pytest.raises(ValueError, match="timed out"):
            download.fetch(remote([address]), tmp_path, timeout=0.2)
        assert time.monotonic() - started < 8


PIECES = {
    "jsb-chorales": ((229, 76, 77), (13_807, 4_602, 4_725)),
    "muse-data": ((524, 135, 124), (245_202, 82_755, 64_339)),
    "piano-midi": ((87, 12, 25), (75_911, 8_540, 19_036)),
}


@with_data
@pytest.mark.parametrize("name", PIECES)
def test_music_is_cut_into_pieces(name):
    counts, steps = PIECES[name]
    data = load_dataset(name)
    parts = (data.train, data.valid, data.test)
    assert tuple(map(len, parts)) == counts
    assert tuple(sum(map(len, part)) for part in parts) == steps
    assert all(piece.shape[1] == 88 and set(np.unique(piece)) <= {0, 1} for part in parts for piece in part)
    # chorales have four voices, which may meet
    assert name != "jsb-chorales" or max(piece.sum(axis=1).max() for piece in data.train) == 4


def test_the_checksum_of_sequences_tells_where_each_ends():
    ones = np.ones((5, 1))
    sums = {Dataset("", parts).checksum for parts in ([ones], [ones[:2], ones[2:]], [ones[:3], ones[3:]], [0 * ones])}
    assert len(sums) == 4 and Dataset("", [ones.copy()]).checksum in sums
