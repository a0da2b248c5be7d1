"""The forms of a key: how it gets its secret, and what can still be changed later."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminRadioSelectWidget, UnfoldAdminSelectWidget

from tenants.admin.forms.tenant_field import TenantChoiceField, TenantScopedModelForm
from tenants.admin.forms.whitespace import WhitespaceStrippingModelForm
from tenants.models import IN_FORCE, Key, KeyState
from tenants.secrets import key_material

GENERATE = "generate"
ENTER = "enter"


class KeyForm(WhitespaceStrippingModelForm):
    """What both forms of a key say."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "state" in self.fields:  # on a page without permission to change it is text
            # Revoking says what stops, so it has a button of its own. Nor is a key in force staged again.
            in_force = not self.instance._state.adding and self.instance.state in IN_FORCE
            left_out = {KeyState.REVOKED, KeyState.STAGED} if in_force else {KeyState.REVOKED}
            state = self.fields["state"]
            state.choices = [one for one in KeyState.choices if one[0] not in left_out]  # type: ignore[attr-defined]
        for name, help_text in (
            ("not_before", "Refused before this moment, in UTC. Empty: no limit."),
            ("not_after", "Refused from this moment on, in UTC. Empty: no limit."),
        ):
            if name in self.fields:
                self.fields[name].help_text = help_text


class KeyChangeForm(KeyForm):
    """State and dates of a key that exists."""

    class Meta:
        model = Key
        fields = ("state", "not_before", "not_after")


class NewKeyForm(TenantScopedModelForm, KeyForm):
    """A key that is generated, or whose secret is entered."""

    tenant = TenantChoiceField(Key, "Whose key it is. It cannot be changed later.")
    source = forms.ChoiceField(
        choices=[
            (GENERATE, "Generate it here; it is shown once"),
            (ENTER, "Enter one that the operator has made"),
        ],
        widget=UnfoldAdminRadioSelectWidget,
        label="Where the secret comes from",
    )
    encoding = forms.ChoiceField(
        choices=[
            ("", "Choose one"),
            ("text", "Text, as it is"),
            ("base64", "base64"),
            ("base64url", "base64url"),
        ],
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text="How the entered secret is written.",
    )
    secret = forms.CharField(
        required=False,
        # Written, and never rendered: not even when the form comes back with an error.
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False),
        help_text="Never shown again. White space around it is removed.",
    )

    class Meta:
        model = Key
        fields = ("tenant", "kid", "algorithm", "state", "not_before", "not_after")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kid"].required = False
        # A new one each time the empty form is shown: a page that is sent twice is then refused as a
        # repetition, and does not make a second key that nobody knows of.
        self.initial.setdefault("kid", str(uuid4()))
        self.fields[
            "kid"
        ].help_text = "The kid that tokens name. Left empty, a generated key gets a new UUID."

    def clean_kid(self) -> str:
        """A generated key may be named here."""
        kid: str = self.cleaned_data["kid"]
        if kid:
            return kid
        if self.data.get("source") != GENERATE:
            raise ValidationError("Enter the key ID that the operator's tokens name.")
        return str(uuid4())

    def clean(self) -> dict[str, Any]:
        """Make or decode the secret, and give it to the key."""
        super().clean()
        generate = self.cleaned_data.get("source") == GENERATE
        if generate and self.cleaned_data.get("secret"):
            self.add_error("secret", "A secret is either generated or entered. Nothing was taken over.")
        if self.cleaned_data.get("source") == ENTER:
            self._check_entered()
        if not self.errors:
            for name in ("tenant", "kid", "algorithm"):
                setattr(self.instance, name, self.cleaned_data[name])
            try:
                self.instance.set_secret(self._generated() if generate else self._decoded())
            except ValidationError as problem:
                self.add_error("secret", problem)
        # From here on nobody needs it in the clear.
        self.cleaned_data.pop("secret", None)
        return self.cleaned_data

    def _check_entered(self) -> None:
        if not self.cleaned_data.get("secret"):
            self.add_error("secret", "Enter the secret.")
        if not self.cleaned_data.get("encoding"):
            self.add_error("encoding", "Say how the secret is written.")

    def _generated(self) -> bytes:
        return key_material.generate(self.cleaned_data["algorithm"])

    def _decoded(self) -> bytes:
        return key_material.decode(self.cleaned_data["secret"], self.cleaned_data["encoding"])

    def _post_clean(self) -> None:
        # The model would ask for a secret that a wrong field has kept from being set.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]
