"""The pages on which staff look up and end what the gate has issued."""

from ags.sessions.admin import account, device, revocation_impact, security_event, session_token

__all__ = ["account", "device", "revocation_impact", "security_event", "session_token"]
