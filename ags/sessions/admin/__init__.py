"""Admin pages of accounts, devices, session tokens and security events."""

from ags.sessions.admin import account, device, revocation_impact, security_event, session_token

__all__ = ["account", "device", "revocation_impact", "security_event", "session_token"]
