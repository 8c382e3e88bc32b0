"""The operations that commands, REST and the dashboard offer: no printing, no HTTP.

accounts  connect, check, pause, disconnect, erase   runs     start, watch, retry, cancel
content   list, search, read, the change feed        fleet    processes, health, `polling doctor`
tokens    the principal of a request                 lookup   ids from what a person types
listings  what is listed page by page                pagination  pages and cursors
scaffold  the skeleton of a new plugin               backend  what the operations work with

Every function says in its docstring what it changes, and raises a `PollingError` whose entry in
`core.error_catalog` names the next step.
"""
