"""Admin pages of accounts, devices, session tokens, security events and the audit trail."""

from ags.sessions.admin import account, device, event, revocation_impact, security_event, session_token

__all__ = ["account", "device", "event", "revocation_impact", "security_event", "session_token"]
