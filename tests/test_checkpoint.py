"""Files: what is saved comes back bit for bit, what is damaged is refused in one line, a crash leaves no half."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import ml_dtypes
import numpy as np
import optax
import pytest
import safetensors.numpy
from damaged_files import KINDS, damaged_copies, opened, sealed

from ravine import checkpoint
from ravine._files import parse_json
from ravine.checkpoint import leaf_names, load_arrays, load_metadata, save_arrays

jax.config.update("jax_numpy_rank_promotion", "raise")


class Pair(NamedTuple):
    one: object
    two: object


def mlp():
    return eqx.nn.MLP(3, 2, 4, 1, key=jr.key(0))


GRID = np.arange(12, dtype=np.float32).reshape(3, 4)
TREES = {
    "nothing": lambda: {},
    "no array": lambda: {"f": jnp.tanh, "n": 3, "none": None},
    "one array": lambda: jnp.arange(3),
    "fortran": lambda: {"w": np.asfortranarray(GRID), "t": GRID.T},
    "strided": lambda: {"w": GRID[:, ::2], "r": GRID[::-1], "b": np.broadcast_to(np.float32(3), (2, 2))},
    "0-d": lambda: {"jax": jnp.asarray(1.5, jnp.float32), "numpy": np.asarray(2.5), "scalar": np.float64(0.1)},
    "empty": lambda: {"a": jnp.zeros((0,)), "b": np.zeros((3, 0, 2), np.int8)},
    "bool": lambda: {"m": jnp.array([True, False]), "n": np.array(True)},
    "integers": lambda: {
        kind + size: np.array([np.iinfo(kind + size).min, 1, np.iinfo(kind + size).max], kind + size)
        for kind in ("int", "uint") for size in ("8", "16", "32", "64")
    },
    "half": lambda: {"b": jnp.asarray([1.0, -2.5], jnp.bfloat16), "h": jnp.asarray([0.1], jnp.float16)},
    "bfloat16 of numpy": lambda: {"b": np.array([[1.0], [3.0]], ml_dtypes.bfloat16).T},
    "double": lambda: {"w": np.array([np.pi, 1e-300])},
    "complex": lambda: {"w": np.array([1 + 2j], np.complex64)},
    "odd numbers": lambda: {"w": np.array([np.nan, -np.nan, np.inf, -0.0, 1e-45], np.float32)},
    "other byte order": lambda: {"w": np.array([1.0, 2.0], ">f8"), "i": np.array([1, 2], ">i4")},
    "key": lambda: jr.key(3),
    "keys": lambda: {"n": jr.split(jr.key(1), (2, 3)), "r": jr.key(2, impl="rbg"), "u": jr.key(3, impl="unsafe_rbg")},
    "unicode": lambda: {"größe": jnp.ones(1), "日本": jnp.ones(2), "🜁": {"é": jnp.ones(3)}, "\ud800": jnp.ones(4)},
    "awkward names": lambda: {
        "a.b": jnp.zeros(1), "a": {"b": jnp.zeros(2), "": jnp.zeros(3)}, "['a']": jnp.zeros(4), "": jnp.zeros(5),
        "0": (jnp.zeros(6),), "__metadata__": jnp.zeros(7), "x\ny": jnp.zeros(8),
        "k#key<fry>": jnp.zeros(9), "k": jr.key(0),
    },
    "number names": lambda: {1: jnp.zeros(1), 0: jnp.zeros(2), -1: (jnp.zeros(3), [jnp.zeros(4)])},
    "named tuple": lambda: Pair(jnp.ones(1), Pair(np.ones(2, np.float32), None)),
    "mlp": mlp,
    "adam": lambda: optax.adam(optax.linear_schedule(1e-3, 0.0, 9)).init(eqx.filter(mlp(), eqx.is_array)),
    "chain": lambda: optax.chain(optax.clip(1.0), optax.adamw(1e-3)).init({"w": jnp.ones(2)}),
}  # fmt: skip


def bits(leaf):
    leaf = (
        jr.key_data(leaf) if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    )
    array = np.asarray(leaf)
    return array.shape, array.dtype.name, array.astype(array.dtype.newbyteorder("="), order="C").tobytes()


def is_array(leaf):
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert (bits(a) == bits(b) and a.dtype.name == b.dtype.name) if is_array(a) else a is b


def assert_refused(action, *words):
    """ValueError, one printable line that holds these words."""
    with pytest.raises(ValueError) as caught:
        action()
    message = str(caught.value)
    assert message.isprintable() and len(message) < 700, message
    for word in words:
        assert word in message


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


# --- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREES)
def test_round_trip_is_exact(name, path):
    tree = TREES[name]()
    save_arrays(path, tree, {"name": name})
    assert_same(load_arrays(path, tree), tree)
    assert load_metadata(path) == {"name": name}


@pytest.mark.parametrize("name", TREES)
def test_same_tree_gives_the_same_bytes(name, path):
    save_arrays(path, TREES[name](), {"b": 1, "a": 2})
    first = path.read_bytes()
    save_arrays(path, TREES[name](), {"a": 2, "b": 1})
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", TREES)
def test_the_format_is_plain_safetensors(name, path):
    tree = TREES[name]()
    save_arrays(path, tree, {})
    read = dict(safetensors.deserialize(path.read_bytes()))
    assert {n: bytes(t["data"]) for n, t in read.items()} == {n: bits(v)[2] for n, v in leaf_names(tree).items()}


def test_shapes_are_enough_to_load(path):
    def build(key):
        net = eqx.nn.MLP(3, 2, 4, 1, key=key)
        return net, optax.adam(1e-3).init(eqx.filter(net, eqx.is_array)), jr.split(key), 7

    tree = build(jr.key(5))
    save_arrays(path, tree, {})
    loaded = load_arrays(path, eqx.filter_eval_shape(build, jr.key(0)))
    assert_same(eqx.filter(loaded, eqx.is_array), eqx.filter(tree, eqx.is_array))
    assert loaded[3] == 7 and loaded[0](jnp.ones(3)).tolist() == tree[0](jnp.ones(3)).tolist()


def test_double_precision_is_kept(path):
    with jax.enable_x64(True):
        tree = {"w": jnp.asarray([np.pi]), "z": jnp.asarray(2**40), "key": jr.key(1)}
        save_arrays(path, tree, {})
        assert_same(load_arrays(path, tree), tree)
        assert_same(load_arrays(path, jax.eval_shape(lambda: tree)), tree)
        like = jax.eval_shape(lambda: tree)
    assert_refused(lambda: load_arrays(path, like), "float64", "double precision")
    assert_refused(lambda: load_arrays(path, tree | {"w": jnp.ones(1)}), "float64")


def test_a_loaded_numpy_array_can_be_written(path):
    save_arrays(path, {"w": np.ones(3)}, {})
    loaded = load_arrays(path, {"w": np.zeros(3)})["w"]
    loaded += 1
    assert isinstance(loaded, np.ndarray) and loaded.tolist() == [2, 2, 2]


def test_names_are_readable():
    tree = {"p": {"net": mlp()}, "opt": optax.adam(1e-3).init({"w": jnp.ones(2)}), "key": jr.key(0)}
    assert {"p.net.layers.0.weight", "opt.0.mu.w", "opt.0.count", "key#key<fry>"} <= set(leaf_names(tree))


@pytest.mark.parametrize("name", TREES)
def test_every_array_has_a_name_of_its_own(name):
    tree = TREES[name]()
    assert len(leaf_names(tree)) == sum(map(is_array, jax.tree.leaves(tree)))


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.zeros(2, complex), np.array([{}])])
def test_what_the_format_lacks_is_refused(array, path):
    assert_refused(lambda: save_arrays(path, {"weird": array}, {}), "weird", "type")
    assert not path.exists()


# --- what does not fit ---------------------------------------------------------------------------------------------

SAVED = {"w": np.ones((2, 3), np.float32), "b": np.ones(2, np.float32), "key": jr.key(1)}
MISFITS = {
    "missing": (SAVED | {"c": np.ones(1)}, ("'c'", "no such leaf", "float64 (1,)")),
    "extra": ({n: v for n, v in SAVED.items() if n != "b"}, ("'b'", "no such leaf", "float32 (2,)")),
    "misshapen": (SAVED | {"w": np.ones((3, 2), np.float32)}, ("'w'", "float32 (3, 2)", "float32 (2, 3)")),
    "mistyped": (SAVED | {"b": np.ones(2, np.int32)}, ("'b'", "int32 (2,)", "float32 (2,)")),
    "other kind of key": (SAVED | {"key": jr.key(1, impl="rbg")}, ("key<rbg>",)),
    "key and words": (SAVED | {"key": jr.key_data(jr.key(1))}, ("'key'",)),
}


def test_some_leaves_can_be_read_alone(path):
    save_arrays(path, SAVED, {})
    assert load_arrays(path, {"b": np.zeros(2, np.float32)}, partial=True)["b"].tolist() == [1, 1]
    assert_refused(lambda: load_arrays(path, {"c": np.zeros(2)}, partial=True), "'c'", "no such leaf")


@pytest.mark.parametrize("name", MISFITS)
def test_another_model_is_refused_by_the_leaf(name, path):
    like, words = MISFITS[name]
    save_arrays(path, SAVED, {})
    assert_refused(lambda: load_arrays(path, like), str(path), *words)


# --- damage --------------------------------------------------------------------------------------------------------


def model():
    return {
        "net": mlp(),
        "double": np.arange(3.0),
        "flag": np.array([True, False]),
        "key": jr.key(1),
        "count": np.asarray(3, np.int32),
    }


def test_two_hundred_damaged_files_are_refused(tmp_path):
    good = tmp_path / "good.safetensors"
    save_arrays(good, model(), {"recipe": "vae", "numbers": {"nats": -1.5}})
    assert_same(load_arrays(good, like := model()), like | {"net": load_arrays(good, like)["net"]})
    seen = set()
    for kind, path in damaged_copies(good, tmp_path):
        assert_refused(lambda path=path: load_arrays(path, like), str(path))
        seen.add(kind)
    assert seen == set(KINDS)


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    tree = {"w": np.ones(2, np.float16), "m": np.array([True])}
    save_arrays(good, tree, {"a": 1})
    data = good.read_bytes()
    for place in range(0, 8 * len(data), 5):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        bad.write_bytes(changed)
        assert_refused(lambda: load_arrays(bad, tree))


def test_every_truncation_is_noticed(tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    save_arrays(good, SAVED, {})
    data = good.read_bytes()
    for length in range(len(data)):
        bad.write_bytes(data[:length])
        assert_refused(lambda: load_arrays(bad, SAVED))


@pytest.mark.parametrize("offsets", [[0, 8], [4, 12], [12, 20]])
def test_tensors_neither_overlap_nor_leave_holes(offsets, tmp_path):
    save_arrays(tmp_path / "good", {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}, {})
    header, numbers = opened((tmp_path / "good").read_bytes())
    header["b"]["data_offsets"] = offsets
    (tmp_path / "bad").write_bytes(sealed(header, numbers[: offsets[1]].ljust(offsets[1], b"\0")))
    like = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}
    assert_refused(lambda: load_arrays(tmp_path / "bad", like), "overlap")


def test_a_newer_format_says_upgrade(tmp_path):
    good = tmp_path / "good"
    save_arrays(good, SAVED, {})
    future = [path for kind, path in damaged_copies(good, tmp_path) if kind == "version-of-the-future"]
    assert_refused(lambda: load_arrays(future[0], SAVED), "newer Ravine", "reads up to 1", "upgrade")
    assert_refused(lambda: load_metadata(future[0]), "newer Ravine")


def test_a_sparse_file_of_a_terabyte_is_not_read(path):
    save_arrays(path, SAVED, {})
    os.truncate(path, 2**40)
    assert_refused(lambda: load_arrays(path, SAVED), "damage", "40 bytes")


@pytest.mark.parametrize("name", ["no/such/file", "x\ny", "", "x" * 300, "\0", "/dev/zero"])
def test_what_is_no_file_is_refused(name, tmp_path):
    assert_refused(lambda: load_arrays(tmp_path / name, SAVED))


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert_refused(lambda: load_arrays(tmp_path / "pipe", SAVED), "a pipe")


# --- writing -------------------------------------------------------------------------------------------------------


def record(**changes):
    empty = {"schema": {}, "versions": {}, "data": {}, "numbers": {}}
    return {"ravine": "0.1.0", "recipe": "vae", "fields": {"steps": "10"}} | empty | changes


def test_nothing_else_is_left(tmp_path):
    checkpoint.save_run(tmp_path, SAVED, record())
    checkpoint.save_checkpoint(tmp_path, SAVED, {})
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"model.safetensors", "recipe.json", "checkpoint/state.safetensors"}


def test_what_a_killed_process_left_is_swept(tmp_path, path):
    old, young = tmp_path / ".a.safetensors.12345678.partial", tmp_path / ".a.safetensors.87654321.partial"
    for left in (old, young):
        left.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    save_arrays(path, SAVED, {})
    assert not old.exists() and young.exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    assert_refused(lambda: save_arrays(tmp_path / "file" / "a", SAVED, {}), "a place to write")
    assert_refused(lambda: save_arrays(tmp_path / "folder", SAVED, {}), "a place to write")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_the_mode_follows_the_umask(path):
    save_arrays(path, SAVED, {})
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


class Crash(BaseException):
    """What stands for the power going off."""


@pytest.mark.parametrize("function", ["replace", "fsync"])
@pytest.mark.parametrize("after", range(6))
def test_a_crash_while_saving_leaves_the_old_run_or_the_new(function, after, tmp_path, monkeypatch):
    checkpoint.save_run(tmp_path, {"w": np.zeros(2)}, record(fields={"steps": "0"}))
    real, calls = getattr(os, function), iter(range(99))

    def crashing(*arguments):
        if next(calls) == after:
            raise Crash
        return real(*arguments)

    monkeypatch.setattr(os, function, crashing)
    try:
        checkpoint.save_run(tmp_path, {"w": np.ones(2)}, record(fields={"steps": "1"}))
    except Crash:
        pass
    monkeypatch.undo()
    steps = checkpoint.load_record(tmp_path)["fields"]["steps"]
    assert checkpoint.load_run(tmp_path, {"w": np.zeros(2)})["w"].tolist() == [float(steps)] * 2
    checkpoint.save_run(tmp_path, {"w": np.ones(2)}, record(fields={"steps": "2"}))
    assert checkpoint.load_record(tmp_path)["fields"]["steps"] == "2"


def test_whoever_reads_while_it_is_written_sees_a_whole_file(tmp_path):
    stop = threading.Event()

    def write():
        for i in range(10**9):
            checkpoint.save_checkpoint(tmp_path, {"w": np.full(50_000, i)}, {"i": i})
            checkpoint.write_json(tmp_path / "a.json", {"w": [i] * 2_000})
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not (tmp_path / "a.json").exists():
            time.sleep(0.01)
        for _ in range(40):
            assert len(np.unique(checkpoint.load_checkpoint(tmp_path, {"w": np.zeros(50_000, int)})["w"])) == 1
            assert len(set(checkpoint.read_json(tmp_path / "a.json")["w"])) == 1
    finally:
        stop.set()
        writer.join()


SAVER = """
import sys, numpy as np
from ravine.checkpoint import save_checkpoint, save_run
folder = sys.argv[1]
record = {"ravine": "0.1.0", "recipe": "vae", "schema": {}, "versions": {}, "data": {}, "numbers": {}}
for i in range(10**9):
    state = {"a": np.full((300, 300), i), "b": np.full((400, 300), i)}
    save_checkpoint(folder, state, {"i": i})
    save_run(folder, state, record | {"fields": {"steps": str(i)}})
    print(i, flush=True)
"""


@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in range(1, 5))])
def test_kill_9_while_saving_leaves_a_whole_checkpoint(seed, tmp_path):
    command = [sys.executable, "-c", SAVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(checkpoint.__file__).parents[2]) as child:
        child.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.0, 0.3))
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    like = {"a": np.zeros((300, 300), int), "b": np.zeros((400, 300), int)}
    steps = int(checkpoint.load_record(tmp_path)["fields"]["steps"])
    newest = checkpoint.checkpoint_record(tmp_path)["i"]
    for expected, tree in (
        (newest, checkpoint.load_checkpoint(tmp_path, like)),
        (steps, checkpoint.load_run(tmp_path, like)),
    ):
        assert all((leaf == expected).all() for leaf in tree.values())
    assert newest - steps in (0, 1)


# --- run folders and JSON ------------------------------------------------------------------------------------------


def test_a_run_comes_back(tmp_path):
    checkpoint.save_run(tmp_path / "new" / "run", SAVED, record(numbers={"nats": np.float32(1.5), "se": float("nan")}))
    loaded = checkpoint.load_record(tmp_path / "new" / "run")
    assert loaded == record(numbers={"nats": 1.5, "se": None}) | {"format": 1}
    assert_same(checkpoint.load_run(tmp_path / "new" / "run", SAVED), SAVED)
    assert checkpoint.checkpoint_record(tmp_path) is None


def test_numbers_may_be_edited_and_nothing_else(tmp_path):
    checkpoint.save_run(tmp_path, SAVED, record())
    found = checkpoint.read_json(tmp_path / "recipe.json")
    checkpoint.write_json(tmp_path / "recipe.json", found | {"numbers": {"nats": 1.0}})
    assert checkpoint.load_record(tmp_path)["numbers"] == {"nats": 1.0}
    checkpoint.write_json(tmp_path / "recipe.json", found | {"fields": {"steps": "11"}})
    assert_refused(lambda: checkpoint.load_record(tmp_path), "do not belong together")


RECORDS = {
    "newer": ({"format": 2}, ("newer Ravine", "format 2", "upgrade")),
    "no version": ({"format": "1"}, ("format",)),
    "true version": ({"format": True}, ("format",)),
    "no fields": ({"fields": None}, ("'fields'", "dict")),
    "fitted no object": ({"fitted": 3}, ("'fitted'", "dict")),
    "field no text": ({"fields": {"steps": 10}}, ("text",)),
    "recipe no text": ({"recipe": ["vae"]}, ("'recipe'", "str")),
}


@pytest.mark.parametrize("name", RECORDS)
def test_a_wrong_record_is_refused(name, tmp_path):
    changes, words = RECORDS[name]
    (tmp_path / "recipe.json").write_text(json.dumps({"format": 1} | record() | changes))
    assert_refused(lambda: checkpoint.load_record(tmp_path), "recipe.json", *words)


@pytest.mark.parametrize("name", ["", "file", "missing", "x\ny"])
def test_what_is_no_run_folder_is_refused(name, tmp_path):
    (tmp_path / "file").write_text("{}")
    assert_refused(lambda: checkpoint.load_record(tmp_path / name), "a folder with recipe.json")


BAD_JSON = [
    b"", b"{", b"[]", b"null", b"3", b'"x"', b"{'a': 1}", b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": 1e999}',
    b'{"a": ' + b"9" * 5000 + b"}", b'{"a": -' + b"9" * 30 + b"}", b'{"a":' * 200_000, b"[" * 10**6,
    b'{"a": 1, "a": 1}', b'{"a": 1} {"b": 2}', b"\xff\xfe{}", b'{"\x00": 1}', b"\x80\x04.", b'{"a": "\xed\xa0\x80"}',
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(BAD_JSON)))
def test_bad_json_is_refused(i, tmp_path):
    (tmp_path / "a.json").write_bytes(BAD_JSON[i])
    assert_refused(lambda: checkpoint.read_json(tmp_path / "a.json"), "a.json")


def test_json_that_is_too_large_is_not_parsed(tmp_path):
    (tmp_path / "a.json").touch()
    os.truncate(tmp_path / "a.json", 2**40)
    assert_refused(lambda: checkpoint.read_json(tmp_path / "a.json"), "MiB")


def test_json_round_trip(tmp_path):
    value = {
        "é\n\ud800": [1, -2.5, True, None, "x"],
        "n": 2**63,
        "array": np.arange(2),
        "jax": jnp.ones(()),
        "t": (1, np.int8(2)),
    }
    checkpoint.write_json(tmp_path / "a.json", value | {"nan": [np.nan, np.float32("inf")]})
    expected = value | {"array": [0, 1], "jax": 1.0, "t": [1, 2], "nan": [None, None]}
    assert checkpoint.read_json(tmp_path / "a.json") == expected
    parse_json((tmp_path / "a.json").read_bytes())


def test_what_json_lacks_is_refused(tmp_path):
    circle: dict = {}
    circle["self"] = circle
    for value in (
        {"a": {"b": object()}},
        {"a": {1: 2}},
        {"a": {1, 2}},
        circle,
        {"a": 10**25},
        {"a": jnp.tanh},
        {"a": 1j},
    ):
        assert_refused(lambda value=value: checkpoint.write_json(tmp_path / "a.json", value))
    assert not list(tmp_path.iterdir())
