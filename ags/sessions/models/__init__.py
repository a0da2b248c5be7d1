"""Models of everything that AGS issues, of the accounts and devices that it issues it to, and of events."""

from ags.sessions.models.events import Event, SecurityEvent
from ags.sessions.models.issued import (
    Account,
    AccountChoice,
    AccountStatus,
    Device,
    DeviceStatus,
    RevokedAccessToken,
    SessionToken,
)
from ags.sessions.models.lease import Lease, PurgeCount
from ags.sessions.models.process import Process

__all__ = [
    "Account",
    "AccountChoice",
    "AccountStatus",
    "Device",
    "DeviceStatus",
    "Event",
    "Lease",
    "Process",
    "PurgeCount",
    "RevokedAccessToken",
    "SecurityEvent",
    "SessionToken",
]
