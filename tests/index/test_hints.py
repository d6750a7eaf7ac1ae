"""Owns the tests of what is said to those who come with the names and files of other libraries."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import annidx
from annidx._progress import _PlainBar

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

NAMES = {
    "l2": "euclidean",
    "L2": "euclidean",
    "sqeuclidean": "euclidean",
    "l1": "manhattan",
    "ip": "dot",
    "inner_product": "dot",
    "InnerProduct": "dot",
    "max_inner_product": "dot",
    "dot_product": "dot",
    "cosinesimil": "cosine",
    "cosine_similarity": "cosine",
    "bit_hamming": "hamming",
    "euclidian": "euclidean",
    "Cosine": "cosine",
}


@pytest.mark.parametrize("name", NAMES)
def test_metrics_of_others_are_known(name: str) -> None:
    with pytest.raises(
        ValueError, match=f'^metric: expected one of .* did you mean "{NAMES[name]}"'
    ):
        annidx.Index(8, name)


def test_a_metric_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="there is none for sets"):
        annidx.Index(8, "jaccard")
    for name in ("earth mover", "", None, 3):
        with pytest.raises(ValueError, match=r'^metric: expected one of "angular".*\(\w+\)$'):
            annidx.Index(8, name)  # type: ignore[arg-type]


def test_a_file_of_annoys_names_what_opens_it(tmp_path: Path) -> None:
    for path in sorted((GOLDEN / "annoy").glob("*.ann")):
        for follow in (False, True):
            with pytest.raises(
                annidx.FormatError, match="annidx.AnnoyIndex loads it and `annidx co"
            ):
                annidx.load(path, follow=follow)  # type: ignore[call-overload]
        with pytest.raises(annidx.FormatError, match="annidx.AnnoyIndex loads it"):
            annidx.verify(path)
    (tmp_path / "text.txt").write_text("no index")
    with pytest.raises(annidx.FormatError, match=r"^(?!.*Annoy).*is not an annidx file"):
        annidx.load(tmp_path / "text.txt")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


STEPS = [("tree", 1, 2), ("tree", 2, 2), ("further trees", 5, 5), ("further trees", 5, 5)]


def test_the_plain_bar_writes_a_stage_once_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    bar = _PlainBar()
    for step in [*STEPS, ("codes", 1, 4)]:
        bar.report(*step)
    bar.close()
    assert log.getvalue() == "tree: 100 %\nfurther trees: 100 %\ncodes:  25 %\n"


def test_the_plain_bar_draws_over_itself_on_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    bar = _PlainBar()
    for step in STEPS:
        bar.report(*step)
    bar.close()
    assert screen.getvalue() == "\rtree:  50 %\rtree: 100 %\n\rfurther trees: 100 %\n"
