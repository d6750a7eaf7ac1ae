"""Filters: what is in stock, what the user has seen, each prepared once or given as a plain list.

Run: python examples/filtered_search.py
"""

from __future__ import annotations

import numpy as np

import annidx

DIM = 32
ITEMS = 20_000


def main() -> None:
    """Ask the same question with ever stricter filters."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    product_numbers = rng.permutation(1_000_000)[:ITEMS]
    in_stock = rng.random(ITEMS) < 0.4
    price = rng.integers(5, 500, size=ITEMS)

    index = annidx.Index(dim=DIM, metric="cosine")
    index.add_items(vectors, ids=product_numbers)
    index.build()
    taste = rng.normal(size=DIM).astype(np.float32)

    # Prepared once, used by every query. A mask is in the order in which the items were added.
    stock = annidx.IdSet(index, in_stock)
    cheap = annidx.IdSet(index, price < 20)

    def show(what: str, allow: annidx.IdSet | None, deny: list[int] | None = None) -> list[int]:
        ids, distances = index.query(taste, k=5, allow=allow, deny=deny)
        print(f"{what:<28}", *(f"{i}:{d:.3f}" for i, d in zip(ids, distances, strict=False)))
        return [int(i) for i in ids]

    show("everything", None)
    first = show("in stock", stock)
    show("in stock, not seen", stock, deny=first)
    show("in stock and cheap", stock & cheap)
    show("in stock, not cheap", stock - cheap)


if __name__ == "__main__":
    main()
