"""Helpers for tests with real servers and real processes.

* `servers`: PostgreSQL and Valkey, to start, stop and kill.
* `deployment`: a database and a namespace for one test.
* `fleet`: `dramatiq core.actors` and `periodiq core.actors`.
* `accounts`: functions that create accounts, runs and ticks directly.
* `gates`: places where processes wait to be killed.
* `metered`: a plugin that logs its calls.
* `grouped`: a plugin whose accounts share a rate limit.
* `redelivery`: a thread that delivers every message repeatedly.
* `workload`: a continuous workload during faults.
* `proxy`: proxies that lose replies and requests.
* `outages`: servers that stall, refuse commands or end sessions.
* `clock`: a wrong clock for a process.
* `ordeal`: a run with a fault in its middle.
* `oracle`: the invariants that must hold after every fault.
"""
