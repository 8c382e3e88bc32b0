"""Redis: its queues, and the messages that travel through it."""
