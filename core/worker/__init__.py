"""A worker process: its in-flight tasks, and running them and saving their results."""
