"""Owns manifests: small text files that name the files of an index which is kept in several.

It must not know how several files are asked as one, nor how they are followed.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from annidx.errors import FormatError
from annidx.index import Index, Path, open_index, open_indexes
from annidx.io import inputs
from annidx.io.export import complete_or_not_at_all

__all__ = ["is_manifest", "open_files", "write_manifest"]

# The key that tells a manifest, and the only version of it.
_KEY: Final = "annidx_manifest"
_VERSION: Final = 1
# By these first bytes a file of this library's own is known as a manifest.
_HEAD: Final = f'{{"{_KEY}":'.encode()
# No manifest that is meant well is larger: some 100 bytes a file.
_MOST_BYTES: Final = 16 << 20
_MOST_FILES: Final = 65_536


@dataclass(frozen=True)
class _Named:
    """A file that a manifest names, or a caller; of the latter nothing is known beforehand."""

    path: str
    identity: str | None = None
    kind: str | None = None


@dataclass(frozen=True)
class _Manifest:
    files: list[_Named]
    newest_wins: bool


def write_manifest(
    files: Iterable[Path],
    *,
    out: Path,
    on_duplicate: Literal["raise", "newest"] = "raise",
    force: bool = False,
) -> None:
    """Name several files as one index, in a small file that `annidx.load` opens.

    Parameters
    ----------
    files : iterable of path
        As `annidx.load` takes them: shards, parts, an index and its changes, in order.
    out : path
        The manifest. It appears when it is complete. It names the files relative to its own folder,
        so that all can move together.
    on_duplicate : {"raise", "newest"}, default "raise"
        As for `annidx.load`; kept in the manifest.
    force : bool, default False
        Replace a file that is no manifest, too.

    Raises
    ------
    ValueError
        The files do not fit together: the message names two of them. Or one is named twice, is the
        manifest itself, or there is none.
    FormatError
        A file is damaged.
    OSError, FileExistsError
        As for `Index.save`.

    Notes
    -----
    The manifest keeps the identity of each file's content: when one of them was replaced since,
    loading refuses it by name. Opens all files once, which takes some fraction of a millisecond
    each, and more where ids must be compared.
    """
    places = [inputs.file_path(one, "files") for one in files]
    if not places:
        raise ValueError("files: expected at least one file, got none")
    where = os.path.realpath(inputs.file_path(out, "out"))
    newest = inputs.one_of(on_duplicate, "on_duplicate", ("raise", "newest")) == "newest"
    if len(places) > _MOST_FILES:
        raise ValueError(f"files: expected at most {_MOST_FILES:,} files, got {len(places):,}")
    _require_each_once([*places, where], "files")
    _require_replaceable(where, force=force)
    with open_indexes(places, warm=False, lock=False, newest_wins=newest) as index:
        named = [
            {"path": _relative(os.fsdecode(path), where), "kind": kind, "identity": identity}
            for path, identity, kind in index._files()
        ]
    lines = ",\n    ".join(json.dumps(one) for one in named)
    text = (
        f'{_HEAD.decode()} {_VERSION},\n  "on_duplicate": {json.dumps(on_duplicate)},\n'
        f'  "files": [\n    {lines}\n  ]\n}}\n'
    )
    with complete_or_not_at_all(where) as unfinished, open(unfinished, "wb") as file:
        file.write(text.encode("ascii"))
        file.flush()
        os.fsync(file.fileno())


def is_manifest(path: str) -> bool:
    """Tell a manifest by its first bytes."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(_HEAD)) == _HEAD
    except OSError:
        return False


def open_files(
    places: list[str], *, warm: bool, lock: bool, newest_wins: bool = False, alone: bool = False
) -> Index:
    """Map files as one index, and those that manifests among them name; see `annidx.load`.

    `alone` says that the one place is no list: it may be a part or a model, too.
    """
    try:
        if alone:
            return open_index(places[0], warm=warm, lock=lock)
        return open_indexes(places, warm=warm, lock=lock, newest_wins=newest_wins)
    except FormatError:
        if not any(is_manifest(place) for place in places):
            raise
    files: list[_Named] = []
    for place in places:
        if is_manifest(place):
            manifest = _read(place)
            files += manifest.files
            newest_wins = newest_wins or manifest.newest_wins
        else:
            files.append(_Named(place))
    paths = [file.path for file in files]
    index = open_indexes(paths, warm=warm, lock=lock, newest_wins=newest_wins)
    try:
        _require_identities(index, files)
    except BaseException:
        index.close()
        raise
    return index


def _require_identities(index: Index, files: list[_Named]) -> None:
    for file, (_, identity, kind) in zip(files, index._files(), strict=True):
        if file.identity in (None, identity) and file.kind in (None, kind):
            continue
        raise FormatError(
            f"{file.path}: expected the {file.kind} of identity {file.identity} that the manifest "
            f"names, found the {kind} of identity {identity}: write the manifest anew"
        )


# ---- reading: a manifest may hold anything --------------------------------------------------


def _read(path: str) -> _Manifest:
    with open(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise _damaged(path, f"at most {_MOST_BYTES:,} bytes", "more")
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "JSON", str(error)) from None
    if not isinstance(found, dict) or found.get(_KEY) != _VERSION:
        raise _damaged(path, f'"{_KEY}": {_VERSION}', _shown(found))
    on_duplicate = found.get("on_duplicate", "raise")
    if on_duplicate not in ("raise", "newest"):
        raise _damaged(path, '"on_duplicate": "raise" or "newest"', _shown(on_duplicate))
    entries = found.get("files")
    if not isinstance(entries, list) or not 0 < len(entries) <= _MOST_FILES:
        raise _damaged(path, f'"files": a list of 1 to {_MOST_FILES:,} files', _shown(entries))
    files = [_entry(path, at, entry) for at, entry in enumerate(entries)]
    try:
        _require_each_once([file.path for file in files] + [path], "files")
    except ValueError as error:
        raise _damaged(path, "each file once", str(error)) from None
    return _Manifest(files, on_duplicate == "newest")


def _entry(path: str, at: int, entry: Any) -> _Named:
    words = []
    if isinstance(entry, dict):
        words = [str(entry[key]) for key in ("path", "identity", "kind") if entry.get(key)]
    if len(words) != 3 or "\0" in words[0]:
        raise _damaged(path, f'"files"[{at}] with "path", "kind" and "identity"', _shown(entry))
    name, identity, kind = words
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise _damaged(path, f'"files"[{at}] with a path of text', _shown(name)) from None
    folder = os.path.dirname(os.path.realpath(path))
    return _Named(os.path.join(folder, name), identity, kind)


def _damaged(path: str, expected: str, found: str) -> FormatError:
    return FormatError(f"'{path}' is a damaged manifest: expected {expected}, found {found}")


def _shown(value: object) -> str:
    most = 80
    text = ascii(value)
    return text if len(text) <= most else f"{text[:most]}..."


# ---- writing ----------------------------------------------------------------------------------


def _require_each_once(paths: list[str], name: str) -> None:
    seen: set[str] = set()
    for path in paths:
        place = os.path.realpath(path)
        if place in seen:
            raise ValueError(
                f"{name}: expected each file once, and another than the manifest, got "
                f"{path!r} again"
            )
        seen.add(place)


def _require_replaceable(path: str, *, force: bool) -> None:
    """Refuse a destination that holds another kind of file: a mistyped name must lose no data."""
    if force or not os.path.exists(path) or is_manifest(path):
        return
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        return
    raise FileExistsError(
        errno.EEXIST,
        "expected a new file, or a manifest to replace, found a file of another kind "
        "(force=True or --force replaces it)",
        path,
    )


def _relative(path: str, manifest: str) -> str:
    try:
        found = os.path.relpath(os.path.realpath(path), os.path.dirname(manifest))
    except ValueError:  # on another drive of Windows
        return os.path.realpath(path)
    return found.replace(os.sep, "/")
