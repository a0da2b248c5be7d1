"""What a provider implements."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from django import forms
from rest_framework import serializers

from providers.contract.keys import KeyRing
from providers.contract.parameters import Declaration
from providers.contract.verdict import Choice, Identity


class Endpoint(enum.Enum):
    """A call that a service can answer: its name in discovery, and its path relative to `/ags`."""

    SIGNON = "/signOn"
    SUBSEQUENT_SIGNON = "/subsequentSignOn"
    GET_SESSION_TOKEN = "/getSessionToken"
    SIGNON_WITH_SESSION_TOKEN = "/signOnWithSessionToken"
    SIGNOUT = "/signOut"


@dataclass(frozen=True, slots=True)
class Finding:
    """What trying a configuration has shown, in a sentence for staff. Nothing secret is in it.

    `good`: whether it lets subscribers in. None: it does not keep them out, but staff should know.
    """

    good: bool | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Example:
    """Settings and parameters of the right form, with which the acceptance suite tries a provider.

    `{upstream}` in a setting stands for the `host:port` of the server that it asks, `{host}` and `{port}` for
    the two alone.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


class Strategy:
    """One way of proving who somebody is.

    `slug` is stored with each service and never changes; `label` is what staff read. `uses_keys`:
    whether `verify` looks for a key in `keys`, so that it proves nothing for a tenant that has none.
    `is_nonblocking`: `verify` waits for nothing, and computes for less than a millisecond. The event loop
    calls it, and answers nobody else meanwhile; any other `verify` is called in a thread. An instance is
    shared by all of them and keeps no state of a request.
    """

    slug: ClassVar[str]
    label: ClassVar[str]
    endpoints: ClassVar[tuple[Endpoint, ...]]
    uses_keys: ClassVar[bool] = False
    debug_only: ClassVar[bool] = False
    is_nonblocking: ClassVar[bool] = False
    Parameters: ClassVar[type[serializers.Serializer[Any]]]
    Settings: ClassVar[type[forms.Form]]
    example: ClassVar[Example] = Example()

    def verify(
        self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing
    ) -> Identity | Choice:
        """Return whom `parameters` prove, judged by `settings` (the cleaned form) and `keys`.

        A `Choice` only where `endpoints` has SUBSEQUENT_SIGNON. Raises `Refused`, and `Unavailable` when an
        upstream leaves it open. Reads no database and writes nothing.
        """
        raise TypeError(f"{type(self).__name__} declares no verify()")

    def prepare(self, settings: Mapping[str, Any], keys: KeyRing) -> None:
        """Begin in the background what `verify` will need. Called when a process first reads the service.

        Returns at once, and raises nothing.
        """

    def documents(self, settings: Mapping[str, Any], keys: KeyRing) -> Mapping[str, str]:
        """Return the addresses of the documents that `verify` relies on, by what staff call each."""
        return {}

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[Finding]:
        """Try the settings against the upstream, and say what was found. Grants and changes nothing.

        May raise `Unavailable`, which is then the last thing found.
        """
        return ()

    @cached_property
    def declaration(self) -> Declaration:
        """Its parameters, prepared."""
        return Declaration(self.Parameters)
