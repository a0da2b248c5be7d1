"""Token formats."""
