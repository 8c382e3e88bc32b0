"""A plugin that cannot be imported."""

raise SystemExit("this plugin needs a library that is not there")
