"""The plugin API. Plugins import it from `core`; it knows no database and no broker."""
