"""The worked examples of the manual run on real data, and what they print is what their pages show.

A page is run from top to bottom in an empty folder. A `text` block is what the block before it prints: words must
agree, and numbers within a share `TOLERANCE` of each other, which leaves room for other processors: their rounding
changes the path of a training. `RAVINE_EXAMPLES=write` puts what was printed and drawn into the manual instead
(`make examples WRITE=1`).
"""

import os
import re
import shutil
import struct
from pathlib import Path

import pytest
from sybil import Document, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser
from test_docs import ROOT, run_shell

DATA = os.environ.get("RAVINE_DATA")
WRITE = os.environ.get("RAVINE_EXAMPLES") == "write"
with_data = pytest.mark.skipif(not DATA, reason="the environment variable RAVINE_DATA names no folder of data")

PAGES = sorted((ROOT / "docs" / "examples").glob("*.md"))
PICTURES = ROOT / "docs" / "_static"
TOLERANCE, LARGEST, LONGEST = 0.15, 80_000, 100
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.(\d+))?(?:e[-+]?\d+)?")


def words(text: str) -> str:
    """The text without its numbers and its spacing, which follows the width of the numbers."""
    return " ".join(NUMBER.sub(" # ", text).split())


def numbers(text: str) -> list[tuple[float, float]]:
    """Every number in the text, and one unit of its last digit."""
    found = NUMBER.finditer(text)
    return [(float(one[0].replace(",", "")), 10.0 ** -len(one[1] or "")) for one in found]


def agree(shown: str, printed: str) -> bool:
    """Whether two texts say the same, up to what a rerun changes."""
    pairs = list(zip(numbers(shown), numbers(printed), strict=False))
    near = [abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) + 1.5 * unit for (a, unit), (b, _) in pairs]
    return words(shown) == words(printed) and len(numbers(shown)) == len(numbers(printed)) and all(near)


def pictures(page: Path) -> list[str]:
    """The names of the pictures that a page shows."""
    return re.findall(r"\.\./_static/(\S+\.png)", page.read_text(encoding="utf-8"))


def size(png: Path) -> tuple[int, int]:
    """Width and height, in pixels."""
    return struct.unpack(">II", png.read_bytes()[16:24])


def parsed(page: Path) -> Document:
    run = [PythonCodeBlockParser(), CodeBlockParser("console", run_shell), CodeBlockParser("text", lambda _: None)]
    return Sybil(run, path=str(page.parent), pattern=page.name).parse(page)


def run(page: Path, capsys: pytest.CaptureFixture[str]) -> list[tuple[slice, str]]:
    """Run a page; where each `text` block is, and what the block before it printed."""
    found, printed = [], ""
    for example in parsed(page).examples():
        block = slice(example.region.start, example.region.end)
        if example.document.text[block].startswith("```text"):
            found.append((block, f"```text\n{printed.rstrip()}\n```"))
            continue
        capsys.readouterr()
        example.evaluate()
        printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    return found


def write(page: Path, found: list[tuple[slice, str]]) -> None:
    """Put what was printed and drawn into the manual."""
    text = page.read_text(encoding="utf-8")
    for block, printed in reversed(found):
        text = text[: block.start] + printed + text[block.stop :]
    page.write_text(text, encoding="utf-8")
    for name in pictures(page):
        shutil.copy(name, PICTURES / name)


@with_data
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_example_prints_and_draws_what_its_page_shows(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    found = run(page, capsys)
    if WRITE:
        write(page, found)
    text = page.read_text(encoding="utf-8")
    for block, printed in [] if WRITE else found:
        assert agree(text[block], printed), f"the page shows\n{text[block]}\nand its code prints\n{printed}"
    for name in pictures(page):
        assert size(Path(name)) == size(PICTURES / name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_pictures_of_its_own_and_is_short(page):
    text = page.read_text(encoding="utf-8")
    written = re.sub(r"```text\n.*?```", "", text, flags=re.DOTALL)  # not what was printed
    assert sum(bool(line.strip()) for line in written.splitlines()) <= LONGEST
    assert 'os.environ["RAVINE_DATA"]' in text and "```text" in text and "```console" in text
    assert pictures(page)
    for name in pictures(page):
        assert f'"{name}"' in text, f"no line of {page.name} draws {name}"
        assert (PICTURES / name).stat().st_size <= LARGEST


@pytest.mark.parametrize(
    ("printed", "same"),
    [
        ("the mean is off by 0.52 +- 0.02\n", True),
        ("the mean   is off by 0.51 +- 0.01", True),
        ("the mean is off by 0.72 +- 0.02", False),
        ("the mean is off by -0.52 +- 0.02", False),
        ("the mode is off by 0.52 +- 0.02", False),
        ("the mean is off by 0.52", False),
    ],
)
def test_a_rerun_agrees_or_does_not(printed, same):
    assert agree("the mean is off by 0.52 +- 0.02", printed) is same


def test_numbers_are_read_as_a_person_reads_them():
    assert [value for value, _ in numbers("1,200 rows of x3, -2.50 nats, 20% and 1e-3")] == [1200, -2.5, 20, 1e-3]


def test_the_quick_check_of_the_manual_leaves_the_examples_alone():
    from test_docs import PAGES as QUICK

    assert PAGES and not set(PAGES) & set(QUICK)
