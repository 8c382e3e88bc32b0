"""One worker process: what it holds, how it runs a task, and how it saves what came of it."""
