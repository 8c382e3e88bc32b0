"""What happens around a task, one concern a file, in the order of `core.actors.MIDDLEWARE`.

Every hook before a task fails closed: Dramatiq logs an unexpected error in one and would run the
task anyway.
"""
