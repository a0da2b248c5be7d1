"""Faults on purpose: what two gateways behind HAProxy do under load, row by row (`make faults`)."""
