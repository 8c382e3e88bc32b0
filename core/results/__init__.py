"""The rules for results and exceptions of tasks, without a database.

The worker, the ledger and `core.testing` all use these rules, so the kit decides as the engine
does:

- `result` converts a `TaskResult` to rows: validated, bounded, and merged to one row per item.
- `outputs` validates one item, and `rows` has the types of rows.
- `decisions` maps each exception to the next state of its task.
- `parking` lists every cause for which a task is parked.
"""
