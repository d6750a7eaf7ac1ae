"""Tests the parts of the explorer that need no server: completion, map, radio, names, stopwatch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from explorer import HOSTILE, clustered
from hypothesis import given
from hypothesis import strategies as st

import annidx
from annidx.explore import projection
from annidx.explore.catalogue import Catalogue
from annidx.explore.measure import Stopwatch
from annidx.explore.names import read_names
from annidx.explore.projection import Projection, sample_rows
from annidx.explore.radio import playlist

# ---- completion ----


def no_title(_: str) -> None:
    return None


@given(
    st.lists(st.text(max_size=8), min_size=1, max_size=40),
    st.text(min_size=1, max_size=3).filter(str.strip),
)
def test_completion_finds_what_a_scan_finds(ids: list[str], wanted: str) -> None:
    found = Catalogue(ids, no_title).find(wanted, 1_000)

    def plain(text: str) -> str:
        return (
            text.translate({10: " ", 9: " ", 13: " "}).lower().encode("utf-8", "replace").decode()
        )

    needle = plain(wanted.translate({10: " ", 9: " ", 13: " "}).strip())
    assert set(found) == {row for row, text in enumerate(ids) if needle in plain(text)}
    begins = [plain(ids[row]).startswith(needle) for row in found]
    assert begins == sorted(begins, reverse=True)


def test_completion_finds_titles_and_prefers_short_beginnings() -> None:
    titles = {"7": "Take Five", "8": "Five", "9": "High five"}
    catalogue = Catalogue(["7", "8", "9", "five", "fiver"], titles.get)
    assert catalogue.find("FIVE", 9)[:3] == [3, 4, 1]
    assert set(catalogue.find("five", 9)) == {0, 1, 2, 3, 4}
    assert catalogue.find("take", 9) == [0]
    assert catalogue.find("", 2) == [0, 1]


def test_completion_keeps_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annidx.explore.catalogue._MOST_ITEMS", 100)
    catalogue = Catalogue((f"{i:05}" for i in range(1_000)), no_title)
    assert len(catalogue) == 100
    assert catalogue.find("00099", 5) == [99]
    assert catalogue.find("00100", 5) == []
    assert len(catalogue.find("0", 12)) == 12


# ---- the map ----


def test_axes_are_those_of_a_decomposition() -> None:
    rng = np.random.default_rng(3)
    spread = np.array([9, 5, 3] + [0.4] * 37)
    vectors = (rng.normal(size=(800, 40)) * spread + 3).astype(np.float32)
    made = Projection(vectors, "euclidean", "axes")
    centred = vectors - vectors.mean(axis=0)
    truth = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    for axis in range(2):
        assert abs(np.corrcoef(made.places[:, axis], truth[:, axis])[0, 1]) > 0.9999
    assert (np.abs(made.places) <= 1).mean() > 0.95
    np.testing.assert_allclose(made.place(vectors[:5]), made.places[:5], atol=1e-4)
    assert made.shades.min() == 0
    assert made.shades.max() == 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 2), (1, 500), (5, 500)])
@pytest.mark.parametrize("metric", ["angular", "dot"])
def test_a_map_of_little_is_finite(shape: tuple[int, int], metric: str) -> None:
    for vectors in (np.zeros(shape), np.ones(shape), np.full(shape, 1e37)):
        made = Projection(vectors, metric, "axes")
        assert made.places.shape == (shape[0], 2)
        assert np.isfinite(made.places).all()


def test_length_does_not_count_under_angular() -> None:
    vectors = clustered(200)
    scaled = vectors * np.linspace(1, 50, 200)[:, None]
    one, other = (Projection(some, "angular", "axes").places for some in (vectors, scaled))
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_the_sample_is_bounded_and_the_same() -> None:
    assert sample_rows(10, 4).tolist() == list(range(10))
    rows = sample_rows(10**6, 4)
    assert len(rows) == len(set(rows.tolist())) == 5_000
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, sample_rows(10**6, 4))
    assert len(sample_rows(10**6, 65_535)) * 65_535 <= 32 << 20


def test_beside_the_points_of_another_map(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = np.random.default_rng(1).normal(size=(300, 2)).astype(np.float32)
    monkeypatch.setattr(projection, "METHODS", ("axes", "umap"))
    monkeypatch.setattr(projection, "_umap", lambda _: flat)
    vectors = clustered(300)
    made = Projection(vectors, "euclidean", "umap")
    np.testing.assert_allclose(made.place(vectors[:9]), made.places[:9], atol=1e-3)
    with pytest.raises(ValueError, match="expected one of"):
        Projection(vectors, "euclidean", "tsne")


@pytest.mark.slow
def test_umap_draws_clusters_apart() -> None:
    pytest.importorskip("umap")
    vectors = np.concatenate([np.eye(8)[i] + clustered(60, 8) * 0.01 for i in (0, 5)])
    places = Projection(vectors, "euclidean", "umap").places
    inside = max(float(part.std()) for part in (places[:60], places[60:]))
    apart = np.linalg.norm(places[:60].mean(axis=0) - places[60:].mean(axis=0))
    assert apart > 2 * inside


# ---- the radio ----


@pytest.fixture(scope="module")
def index() -> annidx.Index:
    made = annidx.Index(24, "angular")
    made.add_items(clustered(2_000))
    made.build(n_jobs=2)
    return made


def ask(index: annidx.Index, seeds: list[int], **changes: object) -> list[int]:
    options: dict[str, object] = {"length": 20, "diversity": 0.3, "allow": None, "deny": []}
    dislikes = changes.pop("dislikes", [])
    return playlist(index, seeds, dislikes, **(options | changes))  # type: ignore[arg-type]


def spread(index: annidx.Index, ids: list[int]) -> float:
    vectors = index.get_vectors(ids)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float(1 - (vectors @ vectors.T).mean())


def test_a_playlist_holds_nothing_twice_and_nothing_known(index: annidx.Index) -> None:
    first = ask(index, [3, 4], dislikes=[5])
    again = ask(index, [3, 4], dislikes=[5], deny=first)
    assert len(set(first + again + [3, 4, 5])) == 43
    only = annidx.IdSet(index, list(range(100)))
    assert set(ask(index, [500], allow=only)) <= set(range(100))
    assert len(ask(index, [3], length=5_000)) <= 1_999


def test_without_diversity_the_nearest_are_played(index: annidx.Index) -> None:
    near = index.query_items(3, k=60)[0].tolist()
    assert set(ask(index, [3], diversity=0.0)) <= set(near)
    assert spread(index, ask(index, [3], diversity=0.9)) > spread(
        index, ask(index, [3], diversity=0.0)
    )


def test_a_playlist_goes_from_the_first_seed_to_the_last(index: annidx.Index) -> None:
    vectors = index.get_vectors(list(range(2_000)))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    other = int((unit @ unit[3]).argmin())
    way = unit[ask(index, [3, other])] @ (unit[other] - unit[3])
    assert way[-4:].mean() > way[:4].mean() + 0.5


def test_dislikes_push_away(index: annidx.Index) -> None:
    near = index.query_items(3, k=30)[0].tolist()
    disliked = near[20:24]
    mean = index.get_vectors(disliked).mean(axis=0)

    def closeness(ids: list[int]) -> float:
        vectors = index.get_vectors(ids)
        return float((vectors @ mean / np.linalg.norm(vectors, axis=1)).mean())

    assert closeness(ask(index, [3], dislikes=disliked)) < closeness(ask(index, [3]))


def test_a_radio_of_bits() -> None:
    bits = annidx.Index(64, "hamming")
    bits.add_items(np.random.default_rng(2).integers(2, size=(300, 64)))
    bits.build(n_jobs=1)
    assert len(set(ask(bits, [1, 2], dislikes=[3]))) == 20


# ---- the stopwatch ----


@pytest.mark.parametrize("metric", ["angular", "euclidean", "dot", "hamming"])
def test_the_stopwatch_counts_what_brute_force_counts(metric: str) -> None:
    vectors = clustered(1_500, 32)
    measured = annidx.Index(32, metric)
    measured.add_items(vectors > 0 if metric == "hamming" else vectors)
    measured.build(n_jobs=2)
    stopwatch = Stopwatch(measured, list(range(50)), 10)
    assert stopwatch.queries == 50
    best = stopwatch.measure(1.0)
    assert best["recall"] == 1.0
    assert best["microseconds"] > 0
    assert stopwatch.exact_seconds > 0
    low = stopwatch.measure(0.5)
    points, bounds = stopwatch._points, []
    sign = -1 if metric == "dot" else 1
    hits = 0
    for point in points:
        bounds = np.sort(sign * measured.query_exact(point, k=1_500)[1])
        found = sign * measured.query(point, k=10, recall=0.5)[1]
        hits += int((found <= bounds[9] + 1e-6 * abs(bounds[9])).sum())
    assert low["recall"] == pytest.approx(hits / 500)


def test_the_stopwatch_of_one_item() -> None:
    one = annidx.Index(3, "euclidean")
    one.add_items(np.ones((1, 3)))
    one.build()
    assert Stopwatch(one, [0], 10).measure(0.9)["recall"] == 1.0


# ---- names ----


def test_names_are_read(tmp_path: Path) -> None:
    wanted = {"7": "Take Five", 'a"b': "x, y", HOSTILE[0]: "<b>"}
    (tmp_path / "n.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in wanted.items()))
    assert read_names(str(tmp_path / "n.tsv")) == wanted
    (tmp_path / "n.json").write_text(json.dumps(wanted))
    assert read_names(str(tmp_path / "n.json")) == wanted
    (tmp_path / "n.csv").write_text('7,Take Five\n\n"a""b","x, y",more\n')
    assert read_names(str(tmp_path / "n.csv")) == {"7": "Take Five", 'a"b': "x, y"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("n.txt", b"7\tfine\nalone\n", "line 2: expected an id, a tab and a title"),
        ("n.csv", b"alone\n", "line 1: expected an id, a comma and a title"),
        ("n.json", b"[1]", "one JSON object of texts"),
        ("n.json", b'{"a": 1}', "one JSON object of texts"),
        ("n.json", b"{", "expected JSON"),
        ("n.tsv", b"\xff\t\xfe", "expected UTF-8"),
    ],
)
def test_wrong_names_are_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_names(str(tmp_path / name))
