"""The rules for what a task returns or raises, without a database.

The worker, the ledger and `core.testing` all ask here, so that the kit judges as the engine does:

- `result` turns a `TaskResult` into rows: checked, bounded, and merged to one row for each item.
- `outputs` and `rows` hold the checks of one item, and the types of rows.
- `decisions` maps each exception to what happens to its task.
- `parking` lists everything that parks a task.
"""
