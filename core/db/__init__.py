"""PostgreSQL: the schema, its migrations, and the connections of this process."""
