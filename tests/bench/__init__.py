"""Benchmarks: they print figures with their spread and the machine's load, and assert nothing."""
