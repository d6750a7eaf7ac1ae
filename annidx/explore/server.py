"""Owns the running server: its socket on 127.0.0.1, its address, its end.

It must not know what the page asks.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import webbrowser
from typing import TextIO

import annidx
from annidx.explore.names import read_names

__all__ = ["serve"]

_HOST = "127.0.0.1"
_TOKEN_BYTES = 16
_BACKLOG = 128
_END_SECONDS = 1


def serve(
    path: str | os.PathLike[str],
    *,
    names: str | None = None,
    port: int = 0,
    browser: bool = True,
    out: TextIO | None = None,
) -> None:
    """Show an index file on a local web page, until Ctrl-C.

    Parameters
    ----------
    path : path
        An index file; a new one that takes its place is taken over.
    names : str, optional
        A file of titles, see `annidx.explore.names.read_names`.
    port : int, default 0
        Port on 127.0.0.1; 0 for a free one.
    browser : bool, default True
        Open the page in a browser, where there is a screen.
    out : text file, optional
        Where the address is printed; standard output by default.

    Raises
    ------
    ImportError
        Starlette or uvicorn is missing: the extra `explore` brings both.
    FormatError, OSError
        The file cannot be opened, or the port is taken.
    """
    try:
        import uvicorn

        from annidx.explore.app import make_app
        from annidx.explore.library import Library
    except ImportError as error:
        raise ImportError(
            f"annidx explore needs Starlette and uvicorn: pip install 'annidx[explore]' ({error})"
        ) from error
    titles = {} if names is None else read_names(names)
    stream = sys.stdout if out is None else out
    with contextlib.ExitStack() as stack:
        index = stack.enter_context(annidx.load(path, follow=True))
        listener = stack.enter_context(_listener(port))
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        address = f"http://{_HOST}:{listener.getsockname()[1]}/{token}/"
        config = uvicorn.Config(
            make_app(Library(index, titles), token),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            _announce(stream, os.path.basename(index.path), len(index), address)
            if browser and _has_screen():
                webbrowser.open(address)
            uvicorn.Server(config).run(sockets=[listener])


def _listener(port: int) -> socket.socket:
    """Listen already, so that the address answers as soon as it is printed."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_HOST, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"port {port}") from None
    return listener


def _announce(out: TextIO, name: str, items: int, address: str) -> None:
    print(f"{name}: {items:,} items, to be seen on this machine at", file=out)
    print(f"\n  {address}\n\nCtrl-C ends it.", file=out, flush=True)


def _has_screen() -> bool:
    wanted = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform == "darwin" or any(os.environ.get(name) for name in wanted)
