"""Rate limits of the fleet.

keys     an account's limits, with the operator's figures, and the keys that count them
budgets  the budgets in Redis, which all workers share
"""
