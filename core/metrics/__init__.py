"""Counters of one process for `/metrics` and the dashboard. Each heartbeat writes them."""
