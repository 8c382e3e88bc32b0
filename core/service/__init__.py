"""The operations that commands, REST and the dashboard offer, without printing and without HTTP.

- `accounts`: connect, check, pause, disconnect, erase.
- `runs`: start, watch, retry, cancel.
- `content`: list, search, read, the change feed.
- `fleet`: processes, health, `polling doctor`.
- `tokens` and `authorization`: the principal of a request.
- `visible`: the condition that hides accounts that are being erased.
- `lookup`: ids from user input.
- `pagination`: pages and cursors. The `queries` module of each package holds its paged queries.
- `query_timeout`: the timeout of slow queries, and their slots.
- `slots`: a bounded number of slots for slow work, of which one user gets a part.
- `scaffold`: the skeleton of a new plugin.
- `backend`: the resources that operations use.

The docstring of an operation states what the operation changes. An operation raises a
`PollingError` whose entry in `core.error_catalog` names the next step.
"""
