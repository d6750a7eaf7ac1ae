"""Owns what the documentation site needs besides docs/: files of the repository that pages link to.

MkDocs calls its functions (`hooks` in mkdocs.yml). A Markdown file outside of docs/ becomes a page,
a source file a page that shows it, a folder a list, a picture a file: all below `source/`. Links
are led there, so that the same text works in the repository and on the site. Pages that the
navigation does not name come under "More".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PREFIX = "source"
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)]*)?\))")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PICTURES = {".png", ".svg"}
LANGUAGES = {".py": "python", ".sh": "sh", ".h": "cpp", ".cpp": "cpp", ".yml": "yaml"}


def on_files(files: Files, config: Any) -> Files:
    """Add what is linked to, and what that links to."""
    waiting = [one.src_uri for one in files.documentation_pages()]
    waiting = [f"docs/{name}" for name in waiting]
    waiting += _named_in(config.nav)
    seen: set[str] = set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        if not place.startswith("docs/"):
            files.append(_file_of(place, config))
        if place.endswith(".md"):
            waiting += [target for target in _targets(place) if not target.startswith("docs/")]
    return files


def on_config(config: Any) -> Any:
    """Put pages that the navigation does not name under "More"."""
    named = set(_texts(config.nav))
    pages = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    rest = [name for name in pages if name not in named]
    if rest:
        config.nav.append({"More": rest})
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to where the site has their targets."""
    here = page.file.src_uri
    place = _place_of(here)

    def led(match: re.Match[str]) -> str:
        target = match[2]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        on_site = _page_of(posixpath.normpath(posixpath.join(posixpath.dirname(place), target)))
        link = posixpath.relpath(on_site, posixpath.dirname(here) or ".")
        return f"{match[1]}{link}{match[3]}"

    parts = []
    end = 0
    for fence in FENCED.finditer(markdown):
        parts += [LINK.sub(led, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(led, markdown[end:])])


def _texts(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for value in nav.values():
            yield from _texts(value)
    else:
        for value in nav:
            yield from _texts(value)


def _named_in(nav: Any) -> list[str]:
    prefix = f"{PREFIX}/"
    return [text[len(prefix) :] for text in _texts(nav) if text.startswith(prefix)]


def _targets(place: str) -> list[str]:
    """List the files and folders of the repository that a Markdown file links to."""
    text = FENCED.sub("", (ROOT / place).read_text(encoding="utf-8"))
    links = (match[2] for match in LINK.finditer(text))
    places = (
        posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
        for link in links
        if "://" not in link and not link.startswith("mailto:")
    )
    return [_readme_of(one) for one in places]


def _readme_of(place: str) -> str:
    """Name the README of a folder that has one."""
    return f"{place}/README.md" if (ROOT / place / "README.md").exists() else place


def _page_of(place: str) -> str:
    """Name the page or file of the site for one of the repository."""
    place = _readme_of(place)
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    plain = place.endswith(".md") or Path(place).suffix in PICTURES
    return f"{PREFIX}/{place}" if plain else f"{PREFIX}/{place}.md"


def _place_of(page: str) -> str:
    """Name the file of the repository that a page is made from."""
    return page.removeprefix(f"{PREFIX}/") if page.startswith(f"{PREFIX}/") else f"docs/{page}"


def _file_of(place: str, config: Any) -> File:
    path = ROOT / place
    if path.suffix in PICTURES:
        return File.generated(config, _page_of(place), abs_src_path=str(path))
    if path.suffix == ".md":
        content = path.read_text(encoding="utf-8")
    elif path.is_dir():
        names = sorted(one.name for one in path.iterdir() if not one.name.startswith((".", "_")))
        content = f"# {place}\n\n" + "".join(f"- `{name}`\n" for name in names)
    else:
        language = LANGUAGES.get(path.suffix, "text")
        content = f"# {place}\n\n```{language}\n{path.read_text(encoding='utf-8')}\n```\n"
    return File.generated(config, _page_of(place), content=content)
