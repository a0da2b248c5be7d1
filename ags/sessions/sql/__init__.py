"""SQL that the session statements share."""
