"""The base class of strategies, which each provider implements."""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar

from django import forms
from rest_framework import serializers

from providers.contract.keys import KeyKind, KeyRing
from providers.contract.parameters import ParameterSchema
from providers.contract.results import Choice, Identity
from providers.contract.steps import Step


class Endpoint(enum.Enum):
    """An endpoint that a service may offer: its name in discovery, and its path relative to `/ags`."""

    SIGNON = "/signOn"
    SUBSEQUENT_SIGNON = "/subsequentSignOn"
    GET_SESSION_TOKEN = "/getSessionToken"
    SIGNON_WITH_SESSION_TOKEN = "/signOnWithSessionToken"
    SIGNOUT = "/signOut"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One result of checking a configuration. `message` is a sentence for staff and contains no secret.

    `passed` is False if subscribers cannot sign on, and None if the result is information only.
    """

    passed: bool | None
    message: str


@dataclass(frozen=True, slots=True)
class Example:
    """Valid settings and parameters with which the acceptance suite tests a provider.

    In a setting, `{upstream}` is replaced by the `host:port` of the upstream, `{host}` and `{port}` by one
    of the two.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


class Strategy:
    """One way to authenticate a subscriber.

    `slug` is stored with each service and never changes; `label` is shown to staff. `uses_keys`: `verify`
    needs a key of the tenant, so nobody can sign on at a tenant without keys; with `uses_keys_if`, only if
    the settings have these values. `key_kind`: the kind of the keys that it gets. `blocking = False`:
    `verify` performs no I/O and takes less than a millisecond; AGS then calls it in the event loop and serves
    no other request until it returns. Otherwise AGS calls it in a thread. All threads share one instance,
    which must not store anything about a request. `steps`: what `verify` checks, in this order, for
    explanations.
    """

    slug: ClassVar[str]
    label: ClassVar[str]
    endpoints: ClassVar[tuple[Endpoint, ...]]
    uses_keys: ClassVar[bool] = False
    uses_keys_if: ClassVar[Mapping[str, str]] = MappingProxyType({})
    key_kind: ClassVar[KeyKind] = KeyKind.SHARED_SECRET
    debug_only: ClassVar[bool] = False
    blocking: ClassVar[bool] = True
    steps: ClassVar[tuple[Step, ...]] = (Step.CREDENTIALS,)
    Parameters: ClassVar[type[serializers.Serializer[Any]]]
    Settings: ClassVar[type[forms.Form]]
    example: ClassVar[Example] = Example()

    def verify(
        self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing
    ) -> Identity | Choice:
        """Return the identity that `parameters` authenticate. `settings` is the cleaned data of `Settings`.

        May return a `Choice` only if `endpoints` contains SUBSEQUENT_SIGNON. Raises `VerificationFailed`, or
        `UpstreamUnavailable` if an upstream gave no usable response. Must not access the database.
        """
        raise TypeError(f"{type(self).__name__} does not implement verify()")

    def get_username(self, parameters: Mapping[str, str], settings: Mapping[str, Any]) -> str | None:
        """Return the username of a subscriber by which AGS limits wrong passwords; None: there is none."""
        name = self.parameter_schema.username
        return None if name is None else parameters.get(name)

    def prepare(self, settings: Mapping[str, Any], keys: KeyRing) -> None:
        """Start fetching what `verify` will need. Called when a process first loads the service.

        Must return immediately and raise nothing.
        """

    def document_urls(self, settings: Mapping[str, Any], keys: KeyRing) -> Mapping[str, str]:
        """Return the URLs of the documents that `verify` needs, by the name that staff see."""
        return {}

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[CheckResult]:
        """Check the settings, against the upstream if there is one. Must not grant or change anything.

        May raise `UpstreamUnavailable`, which is reported as the last result.
        """
        return ()

    @cached_property
    def parameter_schema(self) -> ParameterSchema:
        return ParameterSchema(self.Parameters)
