"""Benchmarks: ``python -m bench`` prints a table; nothing here is timed by a test."""
