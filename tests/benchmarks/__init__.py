"""Benchmarks: one script a claim, each prints one line of JSON with `ours`, `peer` and `ratio`."""
