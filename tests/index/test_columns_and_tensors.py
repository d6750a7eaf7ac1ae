"""Owns the tests of what data people pass: columns of booleans as filters, tensors as vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import annidx

Array = npt.NDArray[Any]
ITEMS = 500


@pytest.fixture(scope="module")
def index() -> annidx.Index:
    made = annidx.Index(8, "euclidean")
    made.add_items(np.random.default_rng(2).normal(size=(ITEMS, 8)).astype(np.float32))
    made.build()
    return made


def pandas_column(mask: list[Any]) -> Any:
    return pytest.importorskip("pandas").Series(mask)


def pandas_nullable(mask: list[Any]) -> Any:
    return pytest.importorskip("pandas").Series(mask, dtype="boolean")


def polars_column(mask: list[Any]) -> Any:
    return pytest.importorskip("polars").Series(mask)


def arrow_array(mask: list[Any]) -> Any:
    return pytest.importorskip("pyarrow").array(mask)


def arrow_chunks(mask: list[Any]) -> Any:
    return pytest.importorskip("pyarrow").chunked_array([mask[:100], mask[100:]])


COLUMNS = [pandas_column, pandas_nullable, polars_column, arrow_array, arrow_chunks]
each_column = pytest.mark.parametrize("column", COLUMNS, ids=lambda make: make.__name__)


@each_column
def test_a_column_of_booleans_is_a_mask(
    index: annidx.Index, column: Callable[[list[Any]], Any]
) -> None:
    mask = np.random.default_rng(4).random(ITEMS) < 0.1
    query = np.zeros(8)
    for side in ("allow", "deny"):
        want, _ = index.query(query, k=20, **{side: mask})
        given = column(mask.tolist())
        for same in (given, annidx.IdSet(index, given)):
            assert index.query(query, k=20, **{side: same})[0].tolist() == want.tolist()
        each, _ = index.query(np.stack([query, query]), k=20, **{side: [given, None]})
        assert each[0].tolist() == want.tolist()
        assert each[1].tolist() == index.query(query, k=20)[0].tolist()


@each_column
def test_missing_values_of_a_mask_are_named(
    index: annidx.Index, column: Callable[[list[Any]], Any]
) -> None:
    with pytest.raises(ValueError, match=r"^allow: expected only True and False.* at place 1"):
        index.query(np.zeros(8), allow=column([True, None] * (ITEMS // 2)))


def test_a_short_column_is_refused(index: annidx.Index) -> None:
    with pytest.raises(ValueError, match=r"deny: expected a mask of shape \(500,\).*got \(3,\)"):
        index.query(np.zeros(8), deny=pandas_column([True, False, True]))


class Tensor:
    """Behaves as PyTorch's tensors do towards NumPy."""

    def __init__(self, values: Array, dtype: str = "torch.float32", grad: bool = False) -> None:
        self.values, self.dtype, self.requires_grad = values, dtype, grad

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        if self.dtype == "torch.sparse":
            raise RuntimeError("cannot be seen")
        return self.values.astype(dtype or self.values.dtype)

    def detach(self) -> Tensor:
        return Tensor(self.values, self.dtype)

    def float(self) -> Tensor:
        return Tensor(self.values, "torch.float32")


@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16"])
def test_tensors_that_require_grad_are_read(index: annidx.Index, dtype: str) -> None:
    queries = np.random.default_rng(6).normal(size=(5, 8)).astype(np.float32)
    want, _ = index.query(queries)
    assert (index.query(Tensor(queries, dtype, grad=True))[0] == want).all()
    made = annidx.Index(8, "euclidean")
    made.add_items(Tensor(queries, dtype, grad=True))
    made.build()
    np.testing.assert_array_equal(made.get_vectors(range(5)), queries)


def test_tensors_that_numpy_cannot_see_are_one_line(index: annidx.Index) -> None:
    with pytest.raises(ValueError, match=r"^vectors: cannot be read as an array.*cannot be seen$"):
        index.query(Tensor(np.zeros(8), "torch.sparse"))


def test_tensors_of_pytorch(index: annidx.Index) -> None:
    torch = pytest.importorskip("torch")
    queries = torch.arange(16, dtype=torch.float32).reshape(2, 8).requires_grad_()
    want, _ = index.query(queries.detach().numpy())
    assert (index.query(queries)[0] == want).all()
    assert (index.query(queries.to(torch.bfloat16))[0] == want).all()
