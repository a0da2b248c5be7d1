"""Import and export of the configuration as a YAML file."""
