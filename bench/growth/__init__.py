"""Whether AGS stays as fast as it is with nearly nothing in its tables: `python -m bench.growth`."""
