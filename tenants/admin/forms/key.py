"""The forms of a key: a new one has a secret; later, the state and dates can be changed."""

from typing import Any
from uuid import uuid4

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
    UnfoldBooleanWidget,
)

from tenants.admin.forms.tenant_field import TenantChoiceField, TenantScopedModelForm
from tenants.admin.forms.version import VersionedModelForm
from tenants.admin.forms.whitespace import WhitespaceStrippingModelForm
from tenants.models import IN_FORCE, Key, KeyState
from tenants.secrets import key_material

GENERATE = "generate"
ENTER = "enter"


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


class NewKeyForm(TenantScopedModelForm, KeyForm):
    tenant = TenantChoiceField(Key, "The tenant that signs with it. It cannot be changed later.")
    source = forms.ChoiceField(
        choices=[
            (GENERATE, "Generate it; it is shown once"),
            (ENTER, "Enter the secret of the operator"),
        ],
        widget=UnfoldAdminRadioSelectWidget,
        label="Source of the secret",
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
        generate = self.cleaned_data.get("source") == GENERATE
        if generate and self.cleaned_data.get("secret"):
            self.add_error(
                "secret", "Generate a secret or enter one, not both. The entered secret was not saved."
            )
        if self.cleaned_data.get("source") == ENTER:
            self._require_entered()
        if not self.errors:
            for name in ("tenant", "kid", "algorithm"):
                setattr(self.instance, name, self.cleaned_data[name])
            try:
                self.instance.set_secret(self._generate_secret() if generate else self._decode_secret())
            except ValidationError as problem:
                self.add_error("secret", problem)
        # Only the encrypted secret is needed from here on.
        self.cleaned_data.pop("secret", None)
        return self.cleaned_data

    def _require_entered(self) -> None:
        if not self.cleaned_data.get("secret"):
            self.add_error("secret", "Enter the secret.")
        if not self.cleaned_data.get("encoding"):
            self.add_error("encoding", "Choose the encoding of the secret.")

    def _generate_secret(self) -> bytes:
        return key_material.generate(self.cleaned_data["algorithm"])

    def _decode_secret(self) -> bytes:
        return key_material.decode(self.cleaned_data["secret"], self.cleaned_data["encoding"])

    def _post_clean(self) -> None:
        # With an error in another field the secret is not set, and the model would require it.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]
