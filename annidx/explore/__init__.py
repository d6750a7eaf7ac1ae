"""annidx.explore: a local web page that shows what an index file holds and how it answers.

Owns the package's face, `serve`; the command `annidx explore` calls it. It needs the extra
`explore` (Starlette and uvicorn) and uses the public API of annidx only.
"""

from __future__ import annotations

from annidx.explore.server import serve

__all__ = ["serve"]
