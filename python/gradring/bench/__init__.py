"""Benchmarks: ratios against whatever peers are installed, from one interleaved run. See ``gradring bench --help``."""
