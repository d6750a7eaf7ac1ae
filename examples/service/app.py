"""The service: related artists, radio, discoveries, from an index that is replaced meanwhile.

Each worker maps the file that the nightly job publishes; all share its memory. A thread in each
looks for a new file, checks it and goes over to it. No request waits for that.

Run in examples/ (README.md has the whole story):
    SERVICE_FOLDER=/tmp/service uvicorn service.app:app --workers 2
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, HTTPException, Query, Request, Response

import annidx
from annidx.follow import FollowingIndex
from service import catalogue, metrics

FOLDER = Path(os.environ.get("SERVICE_FOLDER", "."))
INTERVAL = float(os.environ.get("SERVICE_INTERVAL", "1.0"))

Count = Annotated[int, Query(ge=1, le=100)]
Share = Annotated[float, Query(ge=0.0, le=1.0)]

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(process)d %(name)s: %(message)s")


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what the worker needs, and close it when it ends."""
    app.state.listens = catalogue.read_listens(FOLDER)
    with annidx.load(
        FOLDER / catalogue.INDEX, follow=True, interval=INTERVAL, background=True, verify=True
    ) as live:
        app.state.live = live
        observer = asyncio.create_task(observe(live))
        yield
        observer.cancel()
        metrics.forget_this_worker()


async def observe(live: FollowingIndex) -> None:
    """Keep the metrics of this worker fresh, whichever worker is scraped."""
    while True:
        metrics.note(live.status())
        await asyncio.sleep(INTERVAL)


app = FastAPI(title="Recommendations", lifespan=lifespan)


@app.middleware("http")
async def measure(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    """Time each request, by the route that answers it."""
    began = time.perf_counter()
    response = await go_on(request)
    route = getattr(request.scope.get("route"), "path", "none")
    metrics.SECONDS.labels(route, response.status_code).observe(time.perf_counter() - began)
    return response


@app.get("/related/{artist}")
def related(request: Request, artist: str, k: Count = 10) -> list[dict[str, Any]]:
    """Artists near one, of those that may be shown today."""
    live: FollowingIndex = request.app.state.live
    with known_artist(artist):
        return as_list(*live.query_items(artist, k=k, allow="available"))


@app.get("/radio/{artist}")
def radio(
    request: Request,
    artist: str,
    k: Count = 20,
    diversity: Share = 0.4,
    played: Annotated[list[str], Query()] = [],  # noqa: B006  # FastAPI copies defaults
) -> list[dict[str, Any]]:
    """What to play next: like the artist, unlike each other, never what was played already.

    The player sends what it has played, so that any worker can answer.
    """
    live: FollowingIndex = request.app.state.live
    with known_artist(artist):
        return as_list(
            *live.query_like([artist], k=k, diversity=diversity, allow="available", deny=played)
        )


@app.get("/discover/{user}")
def discover(request: Request, user: str, k: Count = 10) -> list[dict[str, Any]]:
    """Artists that suit all that a user listens to, without those heard before."""
    live: FollowingIndex = request.app.state.live
    plays = request.app.state.listens.get(user)
    if not plays:
        raise HTTPException(404, f"unknown user {user!r}")
    weights = [math.log1p(count) for count in plays.values()]
    heard = list(plays)
    return as_list(
        *live.query_like(
            heard,
            k=k,
            weights=weights,
            diversity=0.2,
            allow="available",
            deny=heard,
            missing="skip",
        )
    )


@app.get("/status")
def status(request: Request) -> dict[str, Any]:
    """Which file this worker answers from, and which it has refused."""
    live: FollowingIndex = request.app.state.live
    return {"process": os.getpid(), "day": (live.metadata or {}).get("day"), **live.status()}


@app.get("/metrics")
def tell_metrics() -> Response:
    """The numbers of all workers."""
    return Response(metrics.text(), media_type=metrics.CONTENT_TYPE)


@contextlib.contextmanager
def known_artist(artist: str) -> Any:
    """Answer 404 for an artist that today's index does not hold."""
    try:
        yield
    except KeyError:
        raise HTTPException(404, f"unknown artist {artist!r}") from None


def as_list(ids: npt.NDArray[Any], distances: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
    """Turn an answer into JSON."""
    return [
        {"artist": name, "distance": round(float(distance), 4)}
        for name, distance in zip(ids, distances, strict=True)
    ]
