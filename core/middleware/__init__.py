"""The middleware around a task, one in each file. `core.actors.MIDDLEWARE` has their order.

The constructor of each takes the parts of the worker process that it uses. Every hook before a task
fails closed (`base`): Dramatiq alone would log an unexpected error, and run the task.
"""
