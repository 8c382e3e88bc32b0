"""The ledger: runs and tasks in PostgreSQL, the only truth about what has to be done.

Modules for runs and tasks:

scheduling   opens runs              dispatching    ready -> queued
leases       queued -> ready         commit         queued -> done, parked, ready
completion   ends runs               controls       retry, discard, cancel

Modules for the beginning and the continuation of runs:

opening      finds or opens a run    carry_over     continues tasks of earlier runs
rereads      reads kept items again  breakers       accounts and limits that failed
hints        events of a provider

Modules for the fleet, and shared ones:

leadership   the leader's lease      processes      the processes of the fleet
pruning      deletes old rows        outcomes       the outcome of a task
listeners    holders of listeners    serialization  objects from named fields

Modules for users and organizations:

use          the use of users        quotas         what users may have
audit        acts and their authors  organizations  accounts of members
erasure      deletes, or restores    endings        ends organizations

Modules for pauses and clocks:

pauses       paused integrations     looks          which accounts changed
monotonic    ages no clock forges    far_ahead      times after a clock was set back

Modules for limits:

limit_overrides  figures that an operator has changed

Modules for receivers:

subscriptions  places in the feed    deliveries     messages that wait

The steps of `commit`, in the order of their locks:

fence        refuses late results    state          compare and set
follow_ups   new tasks               content        content rows
finish       the next task states
"""
