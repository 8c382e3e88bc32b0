"""Counters of a process, for `/metrics` and the dashboard."""
