"""A provider that computes for as long as a parameter says."""
