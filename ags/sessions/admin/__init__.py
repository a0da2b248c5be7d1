"""The pages on which staff look up and end what the gate has issued."""

from ags.sessions.admin import account, device, security_event, session_token, stops

__all__ = ["account", "device", "security_event", "session_token", "stops"]
