"""What one process counts, for `/metrics` and the dashboard.

counters  the counters, which each heartbeat writes to the database
"""
