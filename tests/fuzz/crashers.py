"""Makes files that once did harm, in today's format, so that they are asked again in every run.

Owns what was wrong with each: recipes, not bytes, so that they outlive a change of the format.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import images  # noqa: E402
import make_seeds  # noqa: E402


def _fill(draft: images.Draft, section: str, value: float, field: str | None = None) -> None:
    values = draft.array(section)
    (values if field is None else values[field])[:] = value
    draft.set_array(section, values)


def index_crashers() -> Iterator[tuple[str, bytes]]:
    """Name and content of annidx files."""
    large = make_seeds.image_of("euclidean", "float32", 2_200, 20)
    coded = images.first_leaves(large, 60)

    for name, value in (("not-numbers", np.nan), ("of-infinities", np.inf)):
        draft = images.Draft.of(coded)
        _fill(draft, "curve", value, "recall")
        yield f"curve-{name}", draft.image()
    draft = images.Draft.of(coded)
    _fill(draft, "row_scalars", np.nan)
    yield "row-scalars-not-numbers", draft.image()
    draft = images.Draft.of(large)
    _fill(draft, "mean", np.nan)
    yield "mean-not-a-number", draft.image()
    draft = images.Draft.of(coded)
    draft.params[images.reader.PARAM_PLACES["work_scale"]] = 2.0**127
    yield "work-scale-huge", draft.image()
    draft = images.Draft.of(make_seeds.image_of("euclidean", "float32", 40, 6))
    draft.set_array("vectors", np.full(40 * 6, np.inf, np.float32))
    yield "infinite-item-as-query", draft.image()
    draft = images.Draft.of(coded)
    _fill(draft, "trees", 0, "leaves")
    yield "tree-without-leaves-tuned", draft.image()
