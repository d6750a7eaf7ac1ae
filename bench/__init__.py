"""Benchmarks of annidx beside its peers, on real data, in one run.

``python -m bench --help`` is the way in; README.md says what is measured and how.
"""
