"""Owns files at URLs: fetched whole into a folder of the machine, from where they are mapped.

It must not know what is in them. What speaks to the stores is fsspec.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import tempfile
from typing import Any

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# By what stores tell a file from the one that stood there before.
_VERSION = (
    "ETag", "etag", "VersionId", "version_id", "generation", "Content-MD5", "md5Hash", "checksum",
    "LastModified", "last_modified", "Last-Modified", "mtime", "modified", "updated", "created",
)  # fmt: skip
_KEPT = 2  # fetched files of one URL: a process may be about to map the one before


def is_url(path: str) -> bool:
    """Tell a URL, such as s3://bucket/name, from the path of a file."""
    return _URL.match(path) is not None


def cache_folder() -> str:
    """Name the folder of fetched files: $ANNIDX_CACHE, or annidx in the user's cache folder."""
    chosen = os.environ.get("ANNIDX_CACHE")
    if chosen:
        return chosen
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(caches, "annidx")


def fetched_file(url: str) -> str:
    """Fetch what a URL names, unless that very file is there already; give its path.

    A file of a store that tells neither a version nor a time is fetched each time.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ValueError(f"path: a URL needs fsspec (pip install fsspec), got {url!r}") from error
    try:
        store, place = url_to_fs(url)
        info = store.info(place)
    except Exception as error:  # each store raises its own
        raise _translated(error, url) from error
    version = [f"{name}={info[name]}" for name in _VERSION if info.get(name)]
    folder = cache_folder()
    mark = _digest(url)
    name = f"{mark}-{_digest(repr([info.get('size'), *version]))}.annidx"
    fetched = os.path.join(folder, name)
    if not (version and os.path.exists(fetched)):
        os.makedirs(folder, exist_ok=True)
        _fetch(store, place, info.get("size"), url, fetched)
        _forget_older(os.path.join(glob.escape(folder), f"{mark}-*.annidx"))
    return fetched


def _fetch(store: Any, place: str, size: int | None, url: str, target: str) -> None:
    descriptor, unfinished = tempfile.mkstemp(".tmp", ".fetch-", os.path.dirname(target))
    os.close(descriptor)
    try:
        try:
            store.get_file(place, unfinished)
        except Exception as error:
            raise _translated(error, url) from error
        came = os.path.getsize(unfinished)
        if size is not None and came != size:
            raise OSError(errno.EIO, f"expected {size:,} bytes, got {came:,}", url)
        os.replace(unfinished, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)


def _forget_older(pattern: str) -> None:
    """Remove all but the latest files of a URL; those who have one mapped keep it."""
    found = sorted(glob.glob(pattern), key=os.path.getmtime)
    for path in found[:-_KEPT]:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _translated(error: Exception, url: str) -> Exception:
    """Turn what a store raised into an error of one line that names the URL."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "no such file", url)
    if isinstance(error, OSError):
        return OSError(error.errno or errno.EIO, error.strerror or reason, url)
    if isinstance(error, (ImportError, ValueError)):  # no such protocol, or its package is missing
        return ValueError(f"path: {reason}, got {url!r}")
    return OSError(errno.EIO, reason, url)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:24]
