"""The device of a sign-on: `deviceInformation` at its first sign-on, `clientId` later."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from ags.api.access_log import AccessLogEntry
from ags.api.errors import SIGN_ON_MALFORMED, ApiError
from ags.sessions.services.devices import KnownDevice, NewDevice

# The names on the wire are camelCase.
# ruff: noqa: N815

CLIENT_ID_MAX_LENGTH = 128


class DeviceSerializer(serializers.Serializer[Any]):
    """The device in the body of a sign-on; contains exactly one of the two fields."""

    deviceInformation = serializers.DictField(
        required=False, help_text="Sent at the first sign-on of the device; stored unchanged."
    )
    clientId = serializers.CharField(
        required=False,
        max_length=CLIENT_ID_MAX_LENGTH,
        help_text="Sent at later sign-ons: the client_id of the first response.",
    )


def read_device(body: Mapping[str, Any], entry: AccessLogEntry) -> NewDevice | KnownDevice:
    """Raises ApiError (400)."""
    match {name: body[name] for name in ("deviceInformation", "clientId") if name in body}:
        case {"deviceInformation": dict() as information, **others} if not others:
            return NewDevice(information)
        case {"clientId": str() as client_id, **others} if not others and (
            1 <= len(client_id) <= CLIENT_ID_MAX_LENGTH
        ):
            entry.client_id = client_id
            return KnownDevice(client_id)
    raise ApiError(SIGN_ON_MALFORMED)
