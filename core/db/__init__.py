"""PostgreSQL: the tables, the migrations, and the connections of this process."""
