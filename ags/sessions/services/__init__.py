"""What the gateway does with what it issues: one module for each operation."""
