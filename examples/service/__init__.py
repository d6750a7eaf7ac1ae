"""Owns an example of a whole service: recommendations from an index published every night."""
