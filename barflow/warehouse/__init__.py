"""The PostgreSQL warehouse: connections, queries, loads, migrations and users."""
