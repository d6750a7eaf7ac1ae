"""Text ids: words by their spelling, neighbours of items, neighbours of a mean of vectors.

Run: python examples/text_ids.py
"""

from __future__ import annotations

import annidx
from annidx.demo import load_words


def main() -> None:
    """Index the words of `annidx demo` and ask three kinds of questions."""
    data = load_words()
    index = annidx.Index(dim=data.vectors.shape[1], metric="angular", dtype="int8")
    index.add_items(data.vectors, ids=data.words)
    index.build()
    assert "guitar" in index

    ids, _ = index.query_items(["guitar", "coffee"], k=4)
    for word, near in zip(["guitar", "coffee"], ids, strict=False):
        print(f"near {word}: {', '.join(near)}")

    both = ["winter", "sea"]
    between = index.get_vectors(both).mean(axis=0)
    ids, _ = index.query(between, k=4, deny=both)
    print(f"between {' and '.join(both)}: {', '.join(ids)}")

    ids, _distances = index.query_items(["guitar"], k=100, radius=0.7)
    close = [word for word in ids[0] if word is not None]
    print(f"within 0.7 of guitar: {', '.join(close)}")


if __name__ == "__main__":
    main()
