"""Redis as the transport of tasks.

queues    the commands on the queues, which hold a small window of the ledger
messages  the messages in them, as Dramatiq reads them
"""
