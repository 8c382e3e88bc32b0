"""The plugin API. Plugins import it from `core`; it imports neither the database nor the broker."""
