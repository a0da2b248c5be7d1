"""The formats of tokens: opaque ones and JWTs."""
