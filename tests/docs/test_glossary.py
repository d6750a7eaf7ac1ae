"""Tests docs/glossary.md: each word stands there once, in order, and is used elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
OTHERS = sorted({*(ROOT / "docs").glob("*.md"), ROOT / "README.md"} - {GLOSSARY})
HEADERS = sorted((ROOT / "src_c").rglob("*.h"))
WORDS = re.findall(r"^\| (?!word )(\w[^|]*?) \|", GLOSSARY.read_text(encoding="utf-8"), re.M)
# What stands in backticks or in a program are names.
NAMES = re.compile(r"```.*?```|`[^`\n]*`", re.S)


def test_words_are_in_order_and_told_once() -> None:
    folded = [word.casefold().replace("-", "") for word in WORDS]
    assert len(WORDS) > 30 and folded == sorted(set(folded))


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_glossary_is_used(word: str) -> None:
    stem = r"\b" + r"[\s_-]".join(word.casefold().removesuffix("ing").split())
    texts = (path.read_text(encoding="utf-8").casefold() for path in (*OTHERS, *HEADERS))
    assert any(re.search(stem, text) for text in texts)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_pages_use_the_terms_of_the_field(path: Path) -> None:
    prose = NAMES.sub("", path.read_text(encoding="utf-8"))
    prose = re.sub(r"\w+_\w+", "", prose)  # names of sections in tables
    assert re.findall(r"\bcent(?:re|er)s?\b", prose, re.I) == []
