"""The ledger: runs and tasks in PostgreSQL, the only truth about what has to be done.

scheduling   makes runs          dispatching  ready -> queued        leases   queued -> ready again
saving       queued -> done …    completion   ends a run             parking  retry, discard, cancel
leadership   who dispatches      outcomes     what a task came to    upkeep   pruning and the like
state        compare and set
"""
