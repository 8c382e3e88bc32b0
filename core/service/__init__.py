"""What a person may want of the engine, as functions: no printing, no HTTP.

The command line and the REST API stand on it.

Every function says in its docstring what it changes, and raises a `PollingError` with what to do
next.
"""
