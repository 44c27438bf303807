"""Two hundred ways to damage a model file, the same every time; each must be refused with one line."""

import json
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from ravine._files import json_text
from ravine.checkpoint.arrays import _seal


def damaged_copies(good: Path, folder: Path, count: int = 200, seed: int = 0) -> Iterator[tuple[str, Path]]:
    """What was done, and where the result lies; ``good`` is left alone and must hold two or more tensors.

    The first copies go through the table `KINDS` once, the rest draw from it with other random choices.
    """
    data, rng, kinds = good.read_bytes(), random.Random(seed), list(KINDS)
    for i in range(count):
        kind = kinds[i] if i < len(kinds) else rng.choice(kinds)
        path = folder / f"{i}-{kind}.safetensors"
        made = KINDS[kind](data, rng)
        if made is None:
            path.mkdir()
        else:
            path.write_bytes(made)
        yield kind, path


def opened(data: bytes) -> tuple[dict, bytes]:
    """The header as an object, and the numbers."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def closed(header: dict | bytes, numbers: bytes) -> bytes:
    """A file with this header; the length is right whatever the header is."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def sealed(header: dict, numbers: bytes) -> bytes:
    """A file whose header carries the seal that belongs to it, as somebody who knows the format would make it."""
    head = json.loads(header["__metadata__"]["ravine"])
    head.pop("seal", None)
    table = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    text = json_text(head | {"seal": _seal(head, table)})
    return closed(header | {"__metadata__": {"ravine": text}}, numbers)


def edited(change: Callable[[dict, random.Random], None], close: Callable[[dict, bytes], bytes] = closed):
    """A damage that changes the parsed header."""

    def damage(data: bytes, rng: random.Random) -> bytes:
        header, numbers = opened(data)
        change(header, rng)
        return close(header, numbers)

    return damage


def leaf(header: dict, rng: random.Random) -> str:
    return rng.choice([name for name in header if name != "__metadata__" and header[name]["shape"]])


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for place in rng.sample(range(len(data)), rng.choice([1, 1, 2, 8])):
        changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_numbers(data: bytes, rng: random.Random) -> bytes:
    header, numbers = opened(data)
    place = rng.randrange(len(numbers))
    return closed(header, numbers[:place] + bytes([numbers[place] ^ (1 << rng.randrange(8))]) + numbers[place + 1 :])


def overwrite(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) - 16)
    return data[:start] + rng.randbytes(16) + data[start + 16 :]


def rename(header: dict, rng: random.Random) -> None:
    name = leaf(header, rng)
    header[name + rng.choice("xyz")] = header.pop(name)


def swap(header: dict, rng: random.Random) -> None:
    one, other = rng.sample([name for name in header if name != "__metadata__"], 2)
    header[one], header[other] = header[other], header[one]


def transpose(header: dict, rng: random.Random) -> None:
    header[leaf(header, rng)]["shape"].insert(0, 1)


def retype(header: dict, rng: random.Random) -> None:
    entry = header[leaf(header, rng)]
    entry["dtype"] = {"F32": "I32", "I32": "F32", "U32": "F32", "F64": "I64"}.get(entry["dtype"], "OBJECT")


def misplace(header: dict, rng: random.Random) -> None:
    offsets = header[leaf(header, rng)]["data_offsets"]
    offsets[rng.randrange(2)] += rng.choice([-4, 4, 2**40, -(2**70), 10**30])


def inflate(header: dict, rng: random.Random) -> None:
    entry = header[leaf(header, rng)]
    entry["shape"] = rng.choice([[2**62], [10**19], [2**31, 2**31, 2**31], [-1], [1.5], ["4"], [True], None, {}, [[2]]])


def enlarge(header: dict, rng: random.Random) -> None:
    """Consistent in itself, but terabytes that the file does not have."""
    entry = header[leaf(header, rng)]
    entry["shape"], entry["dtype"], start = [2**40], "U8", entry["data_offsets"][0]
    entry["data_offsets"] = [start, start + 2**40]


def overlap(header: dict, rng: random.Random) -> None:
    name = leaf(header, rng)
    header["twin"] = json.loads(json.dumps(header[name]))


def spoil_entry(header: dict, rng: random.Random) -> None:
    header[leaf(header, rng)] = rng.choice([None, 1, "x", [], {}, {"dtype": "F32"}, [1, 2, 3]])


def in_head(name: str | None, *values: object) -> Callable[[dict, random.Random], None]:
    """Put one of the values in Ravine's own entry of the header, or drop what is there when there are none."""

    def change(header: dict, rng: random.Random) -> None:
        head = json.loads(header["__metadata__"]["ravine"])
        which = name or rng.choice(sorted(head))
        del head[which]
        new = {which: rng.choice(values)} if values else {}
        header["__metadata__"]["ravine"] = json_text(head | new)

    return change


def spoil_text(header: dict, rng: random.Random) -> None:
    deep, wide, twice = '{"a":' * 50_000, '{"format":' + "9" * 6000 + "}", '{"format":1,"format":1}'
    header["__metadata__"]["ravine"] = rng.choice(["", "[]", "{", "NaN", '{"format":NaN}', deep, wide, twice])


def respell(header: dict, rng: random.Random) -> None:
    header["__metadata__"]["ravine"] += " "


def extra_leaf(data: bytes, rng: random.Random) -> bytes:
    header, numbers = opened(data)
    header["extra"] = {"dtype": "U8", "shape": [4], "data_offsets": [len(numbers), len(numbers) + 4]}
    return sealed(header, numbers + b"1234")


def missing_leaf(data: bytes, rng: random.Random) -> bytes:
    header, numbers = opened(data)
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][1])
    start = header.pop(last)["data_offsets"][0]
    return sealed(header, numbers[:start])


def twice(data: bytes, rng: random.Random) -> bytes:
    header, numbers = opened(data)
    name = rng.choice(sorted(header))
    text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
    return closed(text.encode(), numbers)


KINDS: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "empty": lambda data, rng: b"",
    "folder": lambda data, rng: None,
    "cut": lambda data, rng: data[: rng.randrange(1, len(data))],
    "one-byte-short": lambda data, rng: data[:-1],
    "longer": lambda data, rng: data + rng.randbytes(rng.randrange(1, 9)),
    "bits": flip_bits,
    "bits-of-numbers": flip_numbers,
    "overwritten": overwrite,
    "random": lambda data, rng: rng.randbytes(rng.randrange(1, 4000)),
    "zeros": lambda data, rng: bytes(len(data)),
    "text": lambda data, rng: b"this is no model\n" * 9,
    "pickle": lambda data, rng: pickle.dumps({"weights": np.ones(3)}),
    "zip": lambda data, rng: b"PK\x03\x04" + rng.randbytes(300),
    "foreign": lambda data, rng: save({"w": np.ones(3)}),
    "foreign-format": lambda data, rng: save({"w": np.ones(3)}, {"format": "pt"}),
    "header-bomb": lambda data, rng: rng.choice([2**63, 2**40, 2**64 - 1, 10**8]).to_bytes(8, "little") + data[8:],
    "header-of-nothing": lambda data, rng: bytes(8) + data[8:],
    "header-too-deep": lambda data, rng: closed(b'{"a":' * 50_000, b""),
    "header-no-object": lambda data, rng: closed(rng.choice([b"[]", b"1.0", b'"x"', b"null", b"NaN"]), b""),
    "header-no-utf8": lambda data, rng: closed(b'{"\xff\xfe": 1}', b""),
    "header-huge-number": lambda data, rng: closed(b'{"a": ' + b"9" * 9000 + b"}", b""),
    "header-empty": lambda data, rng: closed({}, b""),
    "head-no-object": edited(lambda header, rng: header.update(__metadata__=rng.choice([None, 3, "x", ["ravine"]]))),
    "head-no-text": edited(lambda header, rng: header.update(__metadata__={"ravine": rng.choice([None, 3, {}, []])})),
    "head-gone": edited(lambda header, rng: header.pop("__metadata__")),
    "head-unreadable": edited(spoil_text),
    "head-respelled": edited(respell),
    "head-spoiled": edited(in_head(None, None, 1, [], {}, "", "0" * 64, "x\ny")),
    "head-incomplete": edited(in_head(None)),
    "renamed": edited(rename),
    "renamed-sealed": edited(rename, sealed),
    "swapped": edited(swap),
    "swapped-sealed": edited(swap, sealed),
    "reshaped": edited(transpose),
    "reshaped-sealed": edited(transpose, sealed),
    "retyped": edited(retype),
    "retyped-sealed": edited(retype, sealed),
    "misplaced-sealed": edited(misplace, sealed),
    "inflated-sealed": edited(inflate, sealed),
    "terabytes-sealed": edited(enlarge, sealed),
    "overlapping-sealed": edited(overlap, sealed),
    "entry-spoiled": edited(spoil_entry),
    "record-spoiled-sealed": edited(in_head("record", None, 1, "x", [], [{}]), sealed),
    "record-gone-sealed": edited(in_head("record"), sealed),
    "checksum-spoiled-sealed": edited(in_head("data", None, 1, "", "0" * 64, {}), sealed),
    "version-of-the-future": edited(in_head("format", 2, 7, 10**18), sealed),
    "version-wrong": edited(in_head("format", None, 0, -1, 1.5, "1", "one", True, [1]), sealed),
    "extra-leaf-sealed": extra_leaf,
    "missing-leaf-sealed": missing_leaf,
    "twice": twice,
}
