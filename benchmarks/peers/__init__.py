"""The peers, tuned as their own documentation advises."""
