"""Spark: an index of a DataFrame, and the neighbours of all its rows as another.

Run: pip install 'annidx[spark]' && python examples/spark_build.py (needs Java 17)
"""

from __future__ import annotations

from pyspark.sql import SparkSession
from pyspark.sql import functions as sql

from annidx import spark


def main() -> None:
    """Build and ask by two local executors' threads; on a cluster only the master differs."""
    session = SparkSession.builder.master("local[2]").getOrCreate()
    numbers = [sql.rand(seed).cast("float") for seed in range(16)]
    tracks = session.range(5_000).select("id", sql.array(*numbers).alias("vec")).persist()
    report = spark.build(tracks, out="tracks.annidx", metric="euclidean")
    print(f"{report.items:,} tracks, left out: {report.bad}")

    near = spark.nearest(tracks, "tracks.annidx", k=3)  # query, item, distance, rank
    first = near.where("rank = 1 and query = item").count()
    print(f"{first / report.items:.0%} of the tracks are their own nearest")
    session.stop()


if __name__ == "__main__":
    main()
