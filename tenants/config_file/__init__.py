"""The configuration as a YAML file: read, applied to the database, and written from it."""
