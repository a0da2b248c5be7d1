"""How moments are written on the pages of staff."""
