"""The peers, tuned according to their own documentation."""
