"""The middleware around a task: one in each file, in the order of `core.actors.MIDDLEWARE`.

Each is given the parts of the worker process that it uses. Every hook before a task fails closed
(`base`): Dramatiq alone would log an unexpected error and run the task.
"""
