"""The ledger: runs and tasks in PostgreSQL, the only truth about what has to be done.

Modules for runs and tasks:

scheduling   opens runs              dispatching    ready -> queued
leases       queued -> ready         commit         queued -> done, parked, ready
completion   ends runs               controls       retry, discard, cancel

Modules for the fleet, and shared ones:

leadership   the leader's lease      processes      the processes of the fleet
pruning      deletes old rows        outcomes       the outcome of a task
                                     serialization  objects from named fields

The steps of `commit`, in the order of their locks:

fence        refuses late results    state          compare and set
follow_ups   new tasks               content        content rows
finish       the next task states
"""
