"""Owns the tests of `knn_graph` against brute force, and of the forms of its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import isa_levels
import numpy as np
import numpy.typing as npt
import oracle
import pytest

import annidx

ITEMS, DIM, K = 6_000, 24, 15
Array = npt.NDArray[Any]


def made(metric: str, dtype: str, items: int = ITEMS) -> Array:
    """Rows about some centres, with a few zeros and many duplicates."""
    random = np.random.default_rng(7)
    centres = random.normal(0, 1, (40, DIM))
    rows = centres[random.integers(40, size=items)] + random.normal(0, 0.5, (items, DIM))
    rows[: items // 20] = rows[items // 2 : items // 2 + items // 20]
    rows[items // 10 : items // 10 + 20] = 0
    if dtype == "bits":
        return (rows > 0).astype(np.uint8)
    if dtype in ("int8", "uint8"):
        low, high = (-127, 127) if dtype == "int8" else (0, 255)
        return np.clip(np.round(rows * 30 + (low + high + 1) // 2), low, high).astype(dtype)
    return rows.astype(dtype)


def built(rows: Array, metric: str, dtype: str, ids: Any = None) -> annidx.Index:
    index = annidx.Index(rows.shape[1], metric, dtype)
    index.add_items(rows, ids)
    index.build()
    return index


@pytest.mark.parametrize(("metric", "dtype"), oracle.KINDS)
def test_lists_hold_the_nearest_in_order(metric: str, dtype: str) -> None:
    rows = made(metric, dtype)
    index = built(rows, metric, dtype)
    found, distances = index.knn_graph(K, recall=0.95, n_jobs=2)
    assert found.shape == distances.shape == (ITEMS, K)
    assert found.dtype == np.int64 and distances.dtype == np.float64
    assert found.min() >= 0 and found.max() < ITEMS
    sign = -1 if metric == "dot" else 1
    assert (np.diff(sign * distances, axis=1) >= 0).all()
    kept = index.get_vectors(np.arange(ITEMS))
    hits = 0
    sample = range(0, ITEMS, 37)
    for row in sample:
        assert row not in found[row] and len(set(found[row])) == K
        eligible = np.arange(ITEMS) != row
        _, true = oracle.nearest(kept[row], kept, metric, K, eligible)
        slack = oracle.tolerance(metric, kept, kept[row])
        hits += int((sign * distances[row] <= sign * true[-1] + slack).sum())
        own = oracle.distances(kept[row], kept[found[row]], metric)
        assert np.abs(own - distances[row]).max() <= slack
    assert hits / (K * len(sample)) >= 0.94


@pytest.mark.parametrize(("metric", "dtype"), [("euclidean", "float32"), ("dot", "int8")])
def test_with_recall_1_it_is_brute_force(metric: str, dtype: str) -> None:
    rows = made(metric, dtype, 1_500)
    index = built(rows, metric, dtype)
    found, distances = index.knn_graph(5, recall=1.0, n_jobs=2)
    kept = index.get_vectors(np.arange(len(rows)))
    for row in range(0, len(rows), 41):
        _, true = oracle.nearest(kept[row], kept, metric, 5, np.arange(len(rows)) != row)
        assert np.allclose(distances[row], true, rtol=1e-12, atol=1e-12)
    again, same = index.query_items(np.arange(len(rows)), 5, recall=1.0)
    assert np.array_equal(found, again) and np.array_equal(distances, same)


def test_the_item_comes_first_if_it_is_included() -> None:
    index = built(made("dot", "float32"), "dot", "float32")
    found, distances = index.knn_graph(4, include_self=True)
    assert np.array_equal(found[:, 0], np.arange(ITEMS))
    without, others = index.knn_graph(3)
    assert np.array_equal(found[:, 1:], without) and np.array_equal(distances[:, 1:], others)
    alone, _ = index.knn_graph(1, include_self=True)
    assert np.array_equal(alone[:, 0], np.arange(ITEMS))


def test_distances_are_those_of_queries() -> None:
    index = built(made("cosine", "float16"), "cosine", "float16")
    found, distances = index.knn_graph(K)
    for row in range(0, ITEMS, 301):
        ids, asked = index.query_items(row, 200)
        known = dict(zip(ids.tolist(), asked.tolist(), strict=True))
        for other, distance in zip(found[row].tolist(), distances[row].tolist(), strict=True):
            assert known.get(other, distance) == distance


@pytest.mark.parametrize("items", [1, 2, 5, 900])
def test_few_items_leave_places_empty(items: int) -> None:
    rows = made("euclidean", "float32", 1_000)[:items]
    index = built(rows, "euclidean", "float32", [f"t{i}" for i in range(items)])
    found, distances = index.knn_graph(7)
    there = min(7, items - 1)
    assert (found[:, :there] >= 0).all() and (found[:, there:] == -1).all()
    assert np.isfinite(distances[:, :there]).all() and np.isnan(distances[:, there:]).all()
    names, _ = index.knn_graph(7, output="ids")
    assert all(name is None for name in names[:, there:].ravel())
    matrix = index.knn_graph(7, output="csr")
    assert matrix.shape == (items, items) and matrix.nnz == items * there


@pytest.mark.parametrize("dim", [8, 24])
def test_any_k_and_any_dimension(dim: int) -> None:
    rows = np.random.default_rng(3).normal(size=(2_500, dim)).astype(np.float32)
    index = built(rows, "euclidean", "float32")
    for k in (1, 130):
        found, distances = index.knn_graph(k)
        assert (found >= 0).all()
        sample = range(0, 2_500, 25)
        true = [oracle.nearest(rows[r], rows, "euclidean", k + 1)[1][-1:] for r in sample]
        assert (distances[sample] <= np.array(true) * (1 + 1e-6)).mean() >= 0.92


def test_the_same_for_all_threads_and_instruction_sets(tmp_path: Path) -> None:
    path = tmp_path / "x.annidx"
    built(made("angular", "float32"), "angular", "float32").save(path)
    script = tmp_path / "print_graph.py"
    script.write_text(
        "import sys, hashlib, annidx\n"
        "index = annidx.load(sys.argv[1])\n"
        "for jobs in (1, 3):\n"
        "    rows, distances = index.knn_graph(15, n_jobs=jobs)\n"
        "    print(hashlib.sha256(rows.tobytes() + distances.tobytes()).hexdigest())\n"
    )
    answers: set[str] = set()
    for level in isa_levels.levels():
        output, _ = isa_levels.start(level, str(script), str(path)).communicate(timeout=600)
        assert len(output.split()) == 2, output
        answers.update(output.split())
    assert len(answers) == 1


# ---- forms -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> annidx.Index:
    names = [f"käse {i}" for i in range(3_000)]
    return built(made("euclidean", "float32", 3_000), "euclidean", "float32", names)


@pytest.fixture(scope="module")
def numbers() -> annidx.Index:
    return built(
        made("euclidean", "float32", 3_000), "euclidean", "float32", np.arange(3_000) * 5 - 70
    )


def test_ids_of_both_kinds(texts: annidx.Index, numbers: annidx.Index) -> None:
    rows, distances = numbers.knn_graph(6)
    ids, same = numbers.knn_graph(6, output="ids")
    assert np.array_equal(ids, rows * 5 - 70) and np.array_equal(distances, same)
    names, same = texts.knn_graph(6, output="ids")
    assert names[17].tolist() == [f"käse {r}" for r in rows[17]]
    assert np.array_equal(distances, same)
    assert len({id(name) for name in names.ravel()}) <= 3_000


def test_a_sparse_matrix(numbers: annidx.Index) -> None:
    rows, distances = numbers.knn_graph(6, include_self=True)
    matrix = numbers.knn_graph(6, True, output="csr")
    assert matrix.shape == (3_000, 3_000) and matrix.nnz == rows.size
    assert np.array_equal(matrix.indices.reshape(-1, 6), rows)
    assert np.array_equal(matrix.data.reshape(-1, 6), distances)


def test_without_scipy_the_error_says_so(
    numbers: annidx.Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.sparse", None)
    with pytest.raises(ValueError, match="'csr' needs scipy"):
        numbers.knn_graph(output="csr")


@pytest.mark.parametrize("piece", [65_536, 700])
def test_a_folder_of_npy(
    numbers: annidx.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr("annidx.graph._PIECE_ITEMS", piece)
    for form in ("rows", "ids"):
        expected, distances = numbers.knn_graph(6, output=form)  # type: ignore[call-overload]
        numbers.knn_graph(6, output=form, out=tmp_path / form)  # type: ignore[call-overload]
        assert np.array_equal(np.load(tmp_path / form / f"{form}.npy"), expected)
        assert np.array_equal(np.load(tmp_path / form / "distances.npy"), distances)
        assert sorted(p.name for p in (tmp_path / form).iterdir()) == [
            "distances.npy",
            f"{form}.npy",
        ]


@pytest.mark.parametrize("kind", ["texts", "numbers"])
def test_a_parquet_file(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("annidx.graph._PIECE_ITEMS", 700)
    index = request.getfixturevalue(kind)
    names, distances = index.knn_graph(6, output="ids")
    index.knn_graph(6, output="ids", out=tmp_path / "g.parquet")
    table = parquet.read_table(tmp_path / "g.parquet")
    assert table.column("id").to_pylist() == list(index)
    assert table.column("neighbours").to_pylist() == names.tolist()
    assert table.column("distances").to_pylist() == distances.tolist()


def test_nothing_is_replaced_unasked(
    texts: annidx.Index, numbers: annidx.Index, tmp_path: Path
) -> None:
    (tmp_path / "rows.npy").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        numbers.knn_graph(3, out=tmp_path)
    assert (tmp_path / "rows.npy").read_bytes() == b"mine"
    numbers.knn_graph(3, out=tmp_path, force=True)
    assert np.load(tmp_path / "rows.npy").shape == (3_000, 3)
    with pytest.raises(ValueError, match="returned"):
        numbers.knn_graph(3, output="csr", out=tmp_path)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="text ids"):
        texts.knn_graph(3, output="ids", out=tmp_path)
    own = tmp_path / "own.parquet"
    numbers.save(own)
    with pytest.raises(ValueError, match="own"):
        numbers.knn_graph(3, out=own, force=True)


def test_arguments_are_checked(numbers: annidx.Index) -> None:
    for wrong in ({"k": 0}, {"k": 1.5}, {"output": "dense"}, {"recall": 0}, {"n_jobs": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            numbers.knn_graph(**wrong)  # type: ignore[call-overload]
    with pytest.raises(annidx.StateError):
        annidx.Index(3, "euclidean").knn_graph()


def test_it_reports_and_can_be_stopped(numbers: annidx.Index) -> None:
    stages: list[str] = []
    numbers.knn_graph(progress=lambda stage, done, total: stages.append(stage))
    assert "neighbours" in stages and "answers" in stages

    def stop(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        numbers.knn_graph(progress=stop)
    assert len(numbers.knn_graph(2)[0]) == 3_000
