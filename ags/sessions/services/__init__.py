"""The operations on tokens, sign-ons and accounts: one module for each."""
