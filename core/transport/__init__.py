"""Redis as the transport of tasks.

queues       the commands on the queues, which contain a small window of the ledger
messages     the messages, in Dramatiq's format

The connection to Redis:

permissions  the commands of Redis that the engine runs
sentinel     the connection to a Redis behind Sentinel
"""
