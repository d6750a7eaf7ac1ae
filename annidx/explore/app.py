"""Owns HTTP: which address answers what, who may ask, and how a request is read.

Every address begins with the token; anything else is not found. It must not know vectors.
"""

from __future__ import annotations

import functools
import json
import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annidx.explore.library import Library, ReplacedError

__all__ = ["make_app"]

PAGE = Path(__file__).parent / "page"
# A playlist of many long ids fits; more is no honest request.
_MOST_BODY_BYTES = 16 << 20
_MOST_NEIGHBOURS = 200
_MOST_MATCHES = 50
_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_Answer = Callable[[Library, "Body"], dict[str, Any]]


class Body:
    """The JSON object of a request; each reading method checks what it returns."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise ValueError(f"{name}: expected text, found {_kind(value)}")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a list of texts; none when it is missing."""
        value = self._values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ValueError(f"{name}: expected a list of texts, found {_kind(value)}")
        return value

    def whole(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """Return a whole number in low..high."""
        value = self._values.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{name}: expected a whole number from {low} to {high}")
        return value

    def share(self, name: str, low: float = 0.0) -> float:
        """Return a number in low..1."""
        value = self._values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= 1:
            raise ValueError(f"{name}: expected a number from {low:g} to 1")
        return float(value)

    def has(self, name: str) -> bool:
        """Tell whether a value was given."""
        return self._values.get(name) is not None

    def method(self) -> str:
        """Return the name of the map that places are wanted on."""
        return self.text("map") if self.has("map") else "axes"


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _search(library: Library, body: Body) -> dict[str, Any]:
    return library.search(body.text("text"), body.whole("limit", 1, _MOST_MATCHES, 12))


def _near(library: Library, body: Body) -> dict[str, Any]:
    by_row = not body.has("id")
    return library.near(
        None if by_row else body.text("id"),
        body.whole("row", 0, 2**32) if by_row else None,
        body.whole("generation", 0, 2**53) if by_row else None,
        k=body.whole("k", 1, _MOST_NEIGHBOURS, 20),
        recall=body.share("recall", 0.01) if body.has("recall") else None,
        only=body.texts("only"),
        without=body.texts("without"),
        method=body.method(),
    )


def _radio(library: Library, body: Body) -> dict[str, Any]:
    return library.radio(
        body.texts("seeds"),
        body.texts("dislikes"),
        body.texts("heard"),
        length=body.whole("length", 1, _MOST_NEIGHBOURS, 20),
        diversity=body.share("diversity"),
        only=body.texts("only"),
        without=body.texts("without"),
        method=body.method(),
    )


_ANSWERS: dict[str, _Answer] = {
    "about": lambda library, _: library.about(),
    "status": lambda library, body: library.status(memory=body.has("memory")),
    "map": lambda library, body: library.map(body.method()),
    "measure": lambda library, body: library.measure(body.share("target", 0.01)),
    "search": _search,
    "near": _near,
    "radio": _radio,
}


def make_app(library: Library, token: str) -> Starlette:
    """Make the web application.

    Parameters
    ----------
    library : Library
        What it answers from.
    token : str
        First part of every address: who does not know it is told nothing.

    Returns
    -------
    Starlette
        An ASGI application. Only requests for 127.0.0.1 or localhost are answered.
    """
    mimetypes.add_type("text/javascript", ".js")  # some systems say text/plain
    routes = [
        Route("/", _page),
        *(
            Route(f"/api/{name}", _endpoint(library, answer), methods=["POST"])
            for name, answer in _ANSWERS.items()
        ),
        Mount("/page", StaticFiles(directory=PAGE)),
    ]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        middleware=[
            Middleware(_SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"]),
            Middleware(GZipMiddleware, minimum_size=2_000, compresslevel=1),
        ],
    )


async def _page(_: Request) -> Response:
    return FileResponse(PAGE / "index.html")


def _endpoint(library: Library, answer: _Answer) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        try:
            body = await _read(request)
            return JSONResponse(await run_in_threadpool(functools.partial(answer, library, body)))
        except KeyError:
            return _refusal(404, "the file holds no such item")
        except ReplacedError as error:
            return _refusal(409, str(error))
        except ValueError as error:
            return _refusal(400, str(error))

    return respond


def _refusal(code: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=code)


async def _read(request: Request) -> Body:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _MOST_BODY_BYTES:
            raise ValueError(f"request: expected at most {_MOST_BODY_BYTES:,} bytes")
    try:
        values = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        raise ValueError("request: expected JSON") from None
    if not isinstance(values, dict):
        raise ValueError(f"request: expected a JSON object, found {_kind(values)}")
    return Body(values)


class _SecurityHeaders:
    """Gives every response the headers that keep other pages and caches out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)
