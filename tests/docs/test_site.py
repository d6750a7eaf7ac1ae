"""Tests the documentation as a site: built strictly, without a dead link, asking no other machine.

The tests of the site are skipped where MkDocs is not installed (the extra `docs`), those of the
pictures where matplotlib is not.
"""

from __future__ import annotations

import html.parser
import os
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote

import pytest

import annidx

ROOT = Path(__file__).resolve().parents[2]


class Page(html.parser.HTMLParser):
    """What a page links to, what it loads, and the anchors it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.anchors |= {named[name] for name in ("id", "name") if name in named}
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        elif tag in ("script", "img") and "src" in named:
            self.loads.append(named["src"])
        elif tag == "link" and named.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(named["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; any warning is an error."""
    for name in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "-f",
            ROOT / "mkdocs.yml",
            "-d",
            folder,
        ],
        cwd=folder,  # not among the sources, which may not be built
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_document_is_a_page(pages: dict[Path, Page], site: Path) -> None:
    names = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert names <= {path.stem for path in pages if path.parent == site}
    home = pages[site / "index.html"]
    assert {f"{name}.html" for name in names - {"index"}} <= set(home.links)


def test_no_link_is_dead(pages: dict[Path, Page], site: Path) -> None:
    checked = 0
    for path, page in pages.items():
        for link in page.links + page.loads:
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            found = (path.parent / unquote(target)).resolve() if target else path
            if found.is_dir():
                found /= "index.html"
            assert found.is_relative_to(site), f"{path.name}: {link}"
            assert found.exists(), f"{path.name}: {link}"
            if anchor and found in pages:
                assert unquote(anchor) in pages[found].anchors, f"{path.name}: {link}"
            checked += 1
    assert checked > 500


def test_the_site_loads_nothing_from_elsewhere(pages: dict[Path, Page]) -> None:
    assert [link for page in pages.values() for link in page.loads if "//" in link] == []


def test_the_reference_has_the_whole_interface(pages: dict[Path, Page], site: Path) -> None:
    anchors = pages[site / "api.html"].anchors
    for name in annidx.__all__:
        if not name.startswith("__"):
            assert f"annidx.{name}" in anchors, name
    for owner in (annidx.Index, annidx.AnnoyIndex):
        for name in dir(owner):
            if not name.startswith("_"):
                assert f"annidx.{owner.__name__}.{name}" in anchors, name


def test_pictures_are_drawn_from_an_index(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw = runpy.run_path(str(ROOT / "docs" / "draw.py"))
    drawn = draw["draw_all"](tmp_path)
    kept = sorted(path.name for path in (ROOT / "docs" / "pictures").glob("how-*.svg"))
    assert sorted(path.name for path in drawn) == kept
    text = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    for path in drawn:
        words = "".join(ET.parse(path).getroot().itertext())
        assert draw["QUERY"] in words or path.name in ("how-codes.svg", "how-curve.svg")
        assert f"pictures/{path.name}" in text
        again = (ROOT / "docs" / "pictures" / path.name).read_text(encoding="utf-8")
        assert words.count("\n") > 0
        assert len(again) < 200_000
