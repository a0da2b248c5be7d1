"""The forms of the pages of staff: how a service gets its settings, and a key its secret."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4

from django import forms
from django.contrib import admin
from django.contrib.admin.utils import display_for_value
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.forms.utils import pretty_name
from django.http import HttpRequest
from unfold.widgets import (
    INPUT_CLASSES,
    SELECT_CLASSES,
    SWITCH_CLASSES,
    TEXTAREA_CLASSES,
    UnfoldAdminPasswordWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
)

from providers.contract import Strategy
from providers.registry import strategies
from tenants import material
from tenants.models import TENANT_ID, Key, KeyState, ResourceServer, Service, Tenant
from tenants.models.tenant import MAX_ORIGINS

if TYPE_CHECKING:
    from tenants.admin.service import ServiceAdmin

GENERATE = "generate"
ENTER = "enter"


class ChoiceOfTenant(forms.ModelChoiceField):  # type: ignore[type-arg] # not generic at run time
    """Finds a tenant by what is typed: there may be too many for a list."""

    def __init__(self, model: type[Model], help_text: str) -> None:
        """`model` is whose field `tenant` this is; the search asks by which it may be used."""
        widget = TenantSearch(model._meta.get_field("tenant"), admin.site)
        super().__init__(Tenant.objects, widget=widget, help_text=help_text)

    def to_python(self, value: Any) -> Tenant | None:
        """Look up what may be a tenant ID; the database need not see anything else."""
        if value not in self.empty_values and not TENANT_ID.match(str(value)):
            raise ValidationError(self.error_messages["invalid_choice"], code="invalid_choice")
        tenant: Tenant | None = super().to_python(value)
        return tenant


class TenantSearch(AutocompleteSelect):
    """The box in which is typed. What was typed comes back only if it may be a tenant ID."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        """Return the one option that is chosen."""
        return super().optgroups(name, [one for one in value if TENANT_ID.match(str(one))], attr)


class FormOfTenants(forms.Form):
    """A form that asks for a tenant, and takes one of those that the person may work with."""

    def __init__(self, tenants: QuerySet[Tenant], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _choice_of_tenant(self).queryset = tenants


def _choice_of_tenant(form: forms.BaseForm) -> ChoiceOfTenant:
    return cast("ChoiceOfTenant", form.fields["tenant"])


class NewOfTenant(forms.ModelForm):  # type: ignore[type-arg] # not generic at run time
    """Base of the forms that add something to a tenant that the person may work with."""

    tenants: QuerySet[Tenant]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _choice_of_tenant(self).queryset = self.tenants


_F = TypeVar("_F", bound=NewOfTenant)


def form_for(form: type[_F], tenants: QuerySet[Tenant]) -> type[_F]:
    """Return that form for one of these tenants."""
    return type(form.__name__, (form,), {"tenants": tenants})


class ChoiceOfStrategy(FormOfTenants):
    """The first step to a new service."""

    tenant = ChoiceOfTenant(Service, "Whose service it is. It cannot be changed later.")
    strategy = forms.ChoiceField(
        choices=lambda: [(strategy.slug, strategy.label) for strategy in strategies().values()],
        widget=UnfoldAdminRadioSelectWidget,
        help_text="How it proves who somebody is. It cannot be changed later.",
    )


# The settings of a service

_PREFIX = "settings"
EMPTY = "-"


def setting_name(name: str) -> str:
    """Return the name of a setting among the fields of its service: a setting may be called `name`, too."""
    return f"{_PREFIX}-{name}"


def service_form(
    service: Service, page: ServiceAdmin, request: HttpRequest
) -> type[forms.ModelForm[Service]]:
    """Return the form of a service: its own fields, dressed by the page, and those its strategy declares."""
    strategy = strategies().get(service.strategy)
    declared = strategy.Settings.base_fields if strategy is not None else {}
    settings = {setting_name(name): _dressed(name, field) for name, field in declared.items()}
    form = type("ServiceForm", (ServiceForm,), {**settings, "strategy": strategy, "new": service})
    return forms.modelform_factory(
        Service,
        form=form,
        fields=["name", "display_name", "logo", "enabled"],
        # For whoever may only look: there, these are rows of the page and no fields.
        labels={name: str(field.label) for name, field in settings.items()},
        help_texts={name: str(field.help_text) for name, field in settings.items()},
        formfield_callback=lambda field, **kwargs: page.formfield_for_dbfield(field, request, **kwargs),
    )


def shown_setting(name: str, field: forms.Field) -> Callable[[Service], Any]:
    """Return what tells the value of a setting to a person who may only look."""
    choices: Any = getattr(field, "choices", ())

    def shown(service: Service) -> Any:
        value = service.settings.get(name, field.initial)
        if isinstance(field.widget, forms.PasswordInput):
            return "Not shown"
        if isinstance(value, str):
            value = dict(choices).get(value, value)
        return value if shown.boolean else display_for_value(value, EMPTY) or EMPTY  # type: ignore[attr-defined]

    shown.__name__ = setting_name(name)
    shown.boolean = isinstance(field, forms.BooleanField)  # type: ignore[attr-defined] # an icon, then
    return shown


class ServiceForm(forms.ModelForm):  # type: ignore[type-arg] # not generic at run time
    """A service and its settings. The strategy's own form is the judge of them."""

    strategy: Strategy | None = None
    new: Service
    """What the form is about when it adds."""

    class Meta:
        model = Service
        fields = ()  # `service_form` says which

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        stored = kwargs.get("instance")
        kwargs["instance"] = stored if stored is not None and stored.pk else self.new
        super().__init__(*args, **kwargs)
        for name, value in self.instance.settings.items():
            self.initial.setdefault(setting_name(name), value)

    def clean_name(self) -> str:
        """Keep names apart. The form has no field for the tenant, so Django's own check is left out."""
        name: str = self.cleaned_data["name"]
        others = Service.objects.for_tenant(self.instance.tenant_id).exclude(pk=self.instance.pk)
        if others.filter(name=name).exists():
            raise ValidationError("The tenant has a service of this name already.")
        return name

    def clean(self) -> dict[str, Any]:
        """Take the settings over once the strategy's form accepts them as a whole."""
        super().clean()
        if self.strategy is None:
            if self.cleaned_data.get("enabled"):
                self.add_error(
                    "enabled", "The provider of this service is not installed: it can only be disabled."
                )
            return self.cleaned_data
        judge = self.strategy.Settings(self.data, prefix=_PREFIX)
        for name, messages in judge.errors.items():
            field = setting_name(name) if name in judge.fields else None
            if field not in self.errors:
                self.add_error(field, messages)
        if not self.errors:
            self.instance.settings = {name: judge.cleaned_data[name] for name in judge.fields}
        return self.cleaned_data

    def _post_clean(self) -> None:
        # The model judges the whole row, and names fields that are not here: only once each field is right.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]


def _dressed(name: str, field: forms.Field) -> forms.Field:
    """Return a copy in the clothes of the admin, its widget otherwise as the provider chose it."""
    field = copy.deepcopy(field)
    match field.widget:
        case forms.Select():
            classes = SELECT_CLASSES
        case forms.CheckboxInput():
            classes = SWITCH_CLASSES
        case forms.Textarea():
            classes = TEXTAREA_CLASSES
        case _:
            classes = INPUT_CLASSES
    field.widget.attrs["class"] = " ".join(classes)
    field.label = field.label or pretty_name(name)
    return field


# The secret of a key


class KeyForm(forms.ModelForm):  # type: ignore[type-arg] # not generic at run time
    """What both forms of a key say."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "state" in self.fields:  # on a page without permission to change it is text
            # Revoking asks first, so it has a button of its own.
            state = self.fields["state"]
            state.choices = [(v, label) for v, label in KeyState.choices if v != KeyState.REVOKED]  # type: ignore[attr-defined]
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


class NewKeyForm(NewOfTenant, KeyForm):
    """A key that is generated, or whose secret is entered."""

    tenant = ChoiceOfTenant(Key, "Whose key it is. It cannot be changed later.")
    source = forms.ChoiceField(
        choices=[
            (GENERATE, "Generate it here; it is shown once, on the next page"),
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
        strip=False,
        # Written, and never rendered: not even when the form comes back with an error.
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False),
        help_text="Never shown again.",
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
        return material.generate(self.cleaned_data["algorithm"])

    def _decoded(self) -> bytes:
        return material.decode(self.cleaned_data["secret"], self.cleaned_data["encoding"])

    def _post_clean(self) -> None:
        # The model would ask for a secret that a wrong field has kept from being set.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]


class NewResourceServerForm(NewOfTenant):
    """A resource server; its credentials are made for it."""

    tenant = ChoiceOfTenant(ResourceServer, "Whose tokens it asks about. It cannot be changed later.")

    class Meta:
        model = ResourceServer
        fields = ("tenant", "name")


# The rules of a tenant


class Lines(forms.CharField):
    """A list of texts, one on each line."""

    def to_python(self, value: Any) -> Any:
        """Return what the lines say, without empty ones."""
        lines = (line.strip() for line in (super().to_python(value) or "").splitlines())
        return [line for line in lines if line]

    def prepare_value(self, value: Any) -> Any:
        """Return the lines; what was typed comes back as it is."""
        return "\n".join(value) if isinstance(value, list) else value


class TenantForm(forms.ModelForm):  # type: ignore[type-arg] # not generic at run time
    """A tenant; the model judges."""

    allowed_origins = Lines(
        required=False,
        max_length=MAX_ORIGINS * 300,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}),
        help_text="Web sites whose pages may call the API from a browser: one origin on each line, such as "
        "https://tv.example.",
    )

    class Meta:
        model = Tenant
        fields = ("allowed_origins",)  # the page says which others
        labels = {
            "access_token_ttl": "Access token TTL",
            "refresh_token_ttl": "Refresh token TTL",
            "sign_on_ttl": "Sign-on TTL",
        }
