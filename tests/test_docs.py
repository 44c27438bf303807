"""Every Python block and every `ravine` command in the README and the manual runs, in the order of the page.

The blocks of one page share a namespace and an empty folder; a command runs through the same `main` as the shell's.
"""

import shlex
from pathlib import Path

import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

ROOT = Path(__file__).parent.parent
UNWRITTEN = {"_build", "generated", "examples"}  # examples: see test_examples.py
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if not UNWRITTEN & set(p.parts))]

# Commands that set a machine up; running them is the job of `.ci/run`, not of a page.
SETUP = {"git", "cd", "make", "pip", "python3"}


def commands(block: str) -> list[list[str]]:
    """The commands of a shell block: lines after `$ `, or all of them when no line has a prompt."""
    lines = block.replace("\\\n", " ").splitlines()
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    split = [shlex.split(line, comments=True) for line in prompted or lines]
    return [words for words in split if words]


def run_command(words: list[str]) -> None:
    from ravine.cli import main

    assert words[0] == "ravine" or words[0] in SETUP, f"a page may only run ravine, not {words[0]}"
    if words[0] in SETUP:
        return
    try:
        code = main(words[1:])
    except SystemExit as ended:
        code = ended.code
    assert not code, f"{shlex.join(words)} ended with {code}"


def run_shell(example: Example) -> None:
    for words in commands(example.parsed):
        run_command(words)


def parsed(path: Path) -> Document:
    parsers = [PythonCodeBlockParser(), CodeBlockParser("console", run_shell), CodeBlockParser("bash", run_shell)]
    return Sybil(parsers, path=str(path.parent), pattern=path.name).parse(path)


EXAMPLES = {str(path.relative_to(ROOT)): list(parsed(path).examples()) for path in PAGES}


# Pages that take long; what they show is tested elsewhere too.
GUIDES = "anomalies compare explain few-labels given gradients inside multiple-imputation report sentences tables"
CONCEPTS = "codes-of-rows coupled-networks energies local-learning wake-sleep"
DEAR = {f"docs/guides/{name}.md" for name in GUIDES.split()} | {f"docs/concepts/{name}.md" for name in CONCEPTS.split()}
RUN = [page for page, examples in EXAMPLES.items() if examples]


@pytest.mark.parametrize("page", [pytest.param(p, marks=pytest.mark.slow) if p in DEAR else p for p in RUN])
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for example in EXAMPLES[page]:
        example.evaluate()


def test_a_block_that_fails_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\nThen\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError):
        for example in parsed(page).examples():
            example.evaluate()


def test_a_shell_block_is_read_as_a_person_reads_it():
    block = "$ ravine fit vae digits \\\n    --out run  # a folder\nsome output\n$ ravine score run digits\n"
    assert commands(block) == [["ravine", "fit", "vae", "digits", "--out", "run"], ["ravine", "score", "run", "digits"]]
