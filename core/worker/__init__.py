"""A worker process: it receives tasks, runs them, and saves their results."""
