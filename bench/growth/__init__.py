"""Compare AGS with large tables, many tenants and many keys with a small one: `python -m bench.growth`."""
