"""What tests with real servers and real processes share.

servers      PostgreSQL and Valkey to start, stop and kill
deployment   a database and a namespace of its own
fleet        `dramatiq core.actors` and `periodiq core.actors`
accounts     accounts, runs and ticks, made directly
gates        places where processes wait to be killed
metered      a plugin whose calls are counted
redelivery   delivers every message again and again
workload     work that does not end while faults come
proxy        loses replies and requests
outages      servers that stall, refuse or throw out
clock        a wrong clock for a process
ordeal       a run that something happens to
oracle       what must hold after every fault
"""
