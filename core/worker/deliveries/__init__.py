"""Deliveries to the receivers of subscriptions.

deliverer    one dispatch            sender         the deadline and the egress rules
batches      content of the feed     channels       what a channel is
webhook      signed requests
"""
