"""Benchmarks: ratios against all peers that are installed, from one interleaved run. See ``gradring bench --help``."""
