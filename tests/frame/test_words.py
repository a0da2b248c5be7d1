"""Code and documents use plain technical English: no text has a word that hides a simpler sentence."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

WORDS = re.compile(
    r"\b(told|tells?|judge[sd]?|whoever|whatever|afresh|g[ai]ve[sn]? rise|of no use|for good|is good for"
    r"|stands (?!for)|him(self)?|his|he|she|hers?)\b",
    re.IGNORECASE,
)
CODE = (
    "ags/**/*",
    "tenants/**/*",
    "providers/**/*",
    "examples/*",
    "bench/**/*.py",
    "manage.py",
    "pyproject.toml",
    "requirements/*.in",
    "docker/*",
    ".ci/*",
    ".env.example",
    "Makefile",
    "mkdocs.yml",
)
DOCUMENTS = ("*.md", "docs/**/*.md", "docs/*.py")
EXEMPT = (
    "/migrations/",
    "/__pycache__/",
    "/docs/decisions/0",  # never edited
    "/bench/growth/__main__.py",  # "told" is a key of recorded results
)


def find_words(text: str) -> Iterator[str]:
    """Yield a line number and a line for each line with such a word."""
    for number, line in enumerate(text.splitlines(), start=1):
        if WORDS.search(line):
            yield f"{number}: {line.strip()}"


def source_files() -> Iterator[Path]:
    for pattern in (*CODE, *DOCUMENTS):
        for file in ROOT.glob(pattern):
            is_exempt = any(part in f"/{file.relative_to(ROOT)}" for part in EXEMPT)
            if (
                file.is_file()
                and file.suffix not in {".svg", ".js", ".css", ".woff2", ".png"}
                and not is_exempt
            ):
                yield file


def test_no_text_has_a_word_of_the_list() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in source_files()
        for line in find_words(file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("line", ["# What it is told.", "Whoever asks", "it gives rise to a token", "he may"])
def test_a_word_of_the_list_is_found(line: str) -> None:
    assert list(find_words(line)) == [f"1: {line}"]


def test_other_words_are_not_found() -> None:
    assert not list(find_words("The head stands for a header; a retold theory; the tenant."))
