"""A pipeline of Luigi: train, encode in parts, merge, gate and publish; started again, it goes on.

Without arguments it takes the words of `annidx demo`, then the same as a folder of Parquet files.
Run: python examples/luigi_pipeline.py [SOURCE METRIC [ID_COLUMN]]
"""

from __future__ import annotations

import sys
from pathlib import Path

import luigi
import numpy as np

import annidx
from annidx.demo import load_words
from annidx.luigi import PublishIndex


def publish(source: Path, metric: str, **settings: object) -> None:
    """Bring the index of a source to live/, by two processes."""
    live = Path("live") / f"{source.stem}.annidx"
    task = PublishIndex(source=source, metric=metric, work_dir="work", live=live, **settings)
    if not luigi.build([task], local_scheduler=True, workers=2, log_level="WARNING"):
        raise SystemExit(f"not published: {source}")
    with annidx.load(live) as index:
        print(f"{live} has {len(index):,} items, the first is {index.ids[0]!r}")


def words_as_file() -> Path:
    """Write the words' vectors as an array, and beside it their ids."""
    words = load_words()
    np.save("words.npy", words.vectors)
    Path("words.txt").write_text("\n".join(words.words) + "\n", encoding="utf-8")
    return Path("words.npy")


def words_as_parquet() -> Path:
    """Write them as a folder of three Parquet files."""
    import pyarrow as arrow
    from pyarrow import parquet

    words, folder = load_words(), Path("tracks")
    folder.mkdir(exist_ok=True)
    vectors = np.asarray(words.vectors, dtype=np.float32)
    for number, rows in enumerate(np.array_split(np.arange(len(vectors)), 3)):
        path = folder / f"part-{number}.parquet"
        ids = [words.words[row] for row in rows]
        parquet.write_table(arrow.table({"id": ids, "vector": list(vectors[rows])}), path)
    return folder


def main() -> None:
    """Publish what the arguments name, or the words."""
    if len(sys.argv) > 2:
        column = sys.argv[3] if len(sys.argv) > 3 else None
        publish(Path(sys.argv[1]), sys.argv[2], id_column=column)
        return
    publish(words_as_file(), "angular", dtype="int8", ids="words.txt", n_parts=3)
    publish(words_as_parquet(), "angular", id_column="id", n_parts=4, sample=10_000)


if __name__ == "__main__":
    main()
