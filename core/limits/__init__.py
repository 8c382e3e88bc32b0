"""Rate limits: the keys they are counted under, and the budgets of the fleet."""
