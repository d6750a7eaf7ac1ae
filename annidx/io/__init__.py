"""Owns what goes in and out: what callers may pass, and the formats of files. It knows no index."""
