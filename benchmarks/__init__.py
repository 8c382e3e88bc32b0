"""Benchmarks, each paired with its peer in alternating rounds of one run: `python -m benchmarks NAME [--json]`."""
