"""Parsing of requests: headers, body, parameters, and the tenant and service that they name."""
