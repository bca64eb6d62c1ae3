"""Benchmarks: ratios against peers and limits, all measured in one run on one machine."""
