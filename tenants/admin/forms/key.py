"""The forms of a key: a new one has a secret; later, the state and dates can be changed."""

from typing import Any
from uuid import uuid4

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanWidget,
)

from providers.jose import PUBLIC_KEY_TYPES
from providers.jwks import PublicKeysField, is_public_key_text
from tenants.admin.forms.tenant_field import TenantChoiceField, TenantScopedModelForm
from tenants.admin.forms.version import VersionedModelForm
from tenants.admin.forms.whitespace import WhitespaceStrippingModelForm
from tenants.models import IN_FORCE, Key, KeyState
from tenants.secrets import key_material

GENERATE = "generate"
ENTER = "enter"
PUBLIC = "public"


class KeyForm(WhitespaceStrippingModelForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "state" in self.fields:  # read-only pages have no field
            # A button revokes a key, on a page that shows what stops. A key in force is not staged again.
            in_force = not self.instance._state.adding and self.instance.state in IN_FORCE
            excluded = {KeyState.REVOKED, KeyState.STAGED} if in_force else {KeyState.REVOKED}
            state = self.fields["state"]
            state.choices = [choice for choice in KeyState.choices if choice[0] not in excluded]  # type: ignore[attr-defined]
        for name, help_text in (
            ("not_before", "The key is refused before this time, in UTC. Empty: no limit."),
            ("not_after", "The key is refused from this time on, in UTC. Empty: no limit."),
        ):
            if name in self.fields:
                self.fields[name].help_text = help_text


class KeyChangeForm(VersionedModelForm, KeyForm):
    class Meta:
        model = Key
        fields = ("state", "not_before", "not_after")


class UsedKeyChangeForm(KeyChangeForm):
    """Requires a confirmation of a change after which the requests with the key may be refused."""

    confirm = forms.BooleanField(
        required=False, label="Change it although it is in use", widget=UnfoldBooleanWidget
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["confirm"].help_text = self.instance.traffic_at_risk

    def clean(self) -> dict[str, Any]:
        super().clean()
        dates = {"not_before", "not_after"} & set(self.changed_data)
        retires = "state" in self.changed_data and self.cleaned_data.get("state") == KeyState.RETIRING
        if (dates or retires) and not self.cleaned_data.get("confirm"):
            self.add_error("confirm", "The key is in use. Confirm that its requests may be refused.")
        return self.cleaned_data


class _PublicKeyTextarea(UnfoldAdminTextareaWidget):
    def format_value(self, value: Any) -> str | None:
        """Do not show anything else again that was entered, such as a private key."""
        text = super().format_value(value)
        return text if text and is_public_key_text(text) else None


class NewKeyForm(TenantScopedModelForm, KeyForm):
    tenant = TenantChoiceField(Key, "The tenant that signs with it. It cannot be changed later.")
    source = forms.ChoiceField(
        choices=[
            (GENERATE, "Generate it; it is shown once"),
            (ENTER, "Enter the secret of the operator"),
            (PUBLIC, "Enter the public key of the operator"),
        ],
        widget=UnfoldAdminRadioSelectWidget,
        label="Source",
    )
    encoding = forms.ChoiceField(
        choices=[
            ("", "Choose an encoding"),
            ("text", "Text"),
            ("base64", "base64"),
            ("base64url", "base64url"),
        ],
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text="The encoding of the entered secret.",
    )
    secret = forms.CharField(
        required=False,
        # Never rendered, not even when the form is shown again with errors.
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False),
        help_text="It is not shown again. White space around it is removed.",
    )

    entered_public_key = PublicKeysField(
        required=False,
        label="Public key",
        widget=_PublicKeyTextarea(attrs={"rows": 8, "spellcheck": "false"}),
        help_text="For RS256, PS256, ES256 and EdDSA: a public key or certificate in PEM, or a JWK.",
    )

    class Meta:
        model = Key
        fields = ("tenant", "kid", "algorithm", "state", "not_before", "not_after")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["kid"].required = False
        # Each empty form has another key ID: if it is sent twice, the second is refused, and adds no key.
        self.initial.setdefault("kid", str(uuid4()))
        self.fields["kid"].help_text = "The kid of the tokens. If empty, a generated key gets a new UUID."

    def clean_kid(self) -> str:
        """Return the key ID, a new UUID for a generated key without one."""
        kid: str = self.cleaned_data["kid"]
        if kid:
            return kid
        if self.data.get("source") != GENERATE:
            raise ValidationError("Enter the key ID (kid) of the operator's tokens.")
        return str(uuid4())

    def clean(self) -> dict[str, Any]:
        super().clean()
        self._check_source(self.cleaned_data.get("source"))
        if not self.errors:
            for name in ("tenant", "kid", "algorithm"):
                setattr(self.instance, name, self.cleaned_data[name])
            self._set_material(self.cleaned_data["source"])
        # Only the encrypted secret is needed from here on.
        self.cleaned_data.pop("secret", None)
        return self.cleaned_data

    def _check_source(self, source: str | None) -> None:
        """Require what is entered with this source, and nothing else."""
        if source == ENTER:
            self._require("secret", "Enter the secret.")
            self._require("encoding", "Choose the encoding of the secret.")
        elif source and self.cleaned_data.get("secret"):
            instead = "generate a secret" if source == GENERATE else "enter a public key"
            self.add_error("secret", f"You chose to {instead}. The entered secret was not saved.")
        if source == PUBLIC:
            self._require("entered_public_key", "Enter the public key.")
        elif source and self.cleaned_data.get("entered_public_key"):
            self.add_error(
                "entered_public_key", "You chose a secret as the source. The public key was not saved."
            )
        algorithm = self.cleaned_data.get("algorithm")
        if source and algorithm and (source == PUBLIC) != (algorithm in PUBLIC_KEY_TYPES):
            needed = "a secret" if source == PUBLIC else "a public key"
            self.add_error("algorithm", f"{algorithm} needs {needed}: choose another source.")

    def _require(self, name: str, message: str) -> None:
        if name not in self.errors and not self.cleaned_data.get(name):
            self.add_error(name, message)

    def _set_material(self, source: str) -> None:
        try:
            if source == PUBLIC:
                self.instance.set_public_key(self.cleaned_data["entered_public_key"])
            else:
                generate = source == GENERATE
                self.instance.set_secret(self._generate_secret() if generate else self._decode_secret())
        except ValidationError as problem:
            self.add_error("entered_public_key" if source == PUBLIC else "secret", problem)

    def _generate_secret(self) -> bytes:
        return key_material.generate(self.cleaned_data["algorithm"])

    def _decode_secret(self) -> bytes:
        return key_material.decode(self.cleaned_data["secret"], self.cleaned_data["encoding"])

    def _post_clean(self) -> None:
        # With an error in another field the secret is not set, and the model would require it.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]
