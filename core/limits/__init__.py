"""Rate limits of the fleet.

- `keys`: the limits of an account, with the operator's overrides, and the keys that count them.
- `budgets`: the budgets in Redis, which all workers share.
- `scripts`: the scripts that count budgets in Redis.
"""
