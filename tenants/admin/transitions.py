"""Transitions: changes of one row that staff confirm on a page of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from django.contrib import messages
from django.contrib.admin.utils import quote
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.text import capfirst
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from tenants.admin.base import BoundedAdmin, add_propagation_link
from tenants.models import ConfigurationModel

collect_revocation_impact = Signal()
"""Sent with `row` before staff revoke it, or (`revokes_issued`) everything that it issued.

Receivers return sentences about what stops. They may live in an app that this one does not import.
"""

OFFLINE = (
    "AGS refuses the access tokens at once. A resource server that verifies them offline accepts them until "
    "they expire."
)
"""The limit of every revocation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A change of the state of a row that staff confirm on a page of its own, such as a revocation.

    Texts are templates of `str.format`, with the value `row`.
    """

    name: str
    """Of the action. The last part of the URL is the same with hyphens."""
    label: str
    title: str
    consequences: tuple[str, ...]
    done: str
    sources: Collection[Any] | None = None
    """The states of rows to which it is offered; None: all."""
    target: Any = None
    """The state of the row afterwards."""
    method: str = "set_state"
    """The method of the page that executes it, called with the request, the row and this.

    It returns None, or a sentence in place of `done`, or a page to show in place of the row.
    """
    permission: str = "change"
    variant: ActionVariant = ActionVariant.DANGER
    details: Callable[[Any], list[str]] = lambda _: []
    """Returns more sentences, those that depend on other rows."""
    warning: Callable[[Any], str] = lambda _: ""
    second_confirmation: Callable[[Any], tuple[str, str] | None] = lambda _: None
    """Returns a warning and the label of a checkbox without which the transition is not made, or None."""
    revokes_issued: bool = False
    """Whether it revokes everything that the row issued, and not the row itself."""

    @property
    def is_dangerous(self) -> bool:
        """Whether the page shows what stops."""
        return self.variant is ActionVariant.DANGER

    def as_action(self) -> Any:
        def view(page: TransitionAdmin, request: HttpRequest, object_id: str) -> HttpResponse:
            return page.transition_view(request, object_id, self)

        view.__name__ = self.name
        return action(
            description=self.label,
            url_path=self.name.replace("_", "-"),
            permissions=[self.permission],
            variant=self.variant,
        )(view)


class TransitionAdmin(BoundedAdmin):
    """Base of pages of rows with transitions. Each is a button, and a page that asks for confirmation."""

    transitions: ClassVar[tuple[Transition, ...]] = ()
    state_field: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for transition in cls.transitions:
            setattr(cls, transition.name, transition.as_action())
        cls.actions_detail = tuple(transition.name for transition in cls.transitions)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        row = self.get_object_or_404(request, object_id)
        prefix = f"{self.opts.app_label}_{self.opts.model_name}_"
        offered = {prefix + item.name for item in self.transitions if self.is_offered(item, row)}
        actions: list[Any] = super().get_actions_detail(request, object_id)
        return [item for item in actions if item.action_name in offered]

    def is_offered(self, transition: Transition, row: Any) -> bool:
        """Return whether the row has a button for it. The page of one without a button still answers."""
        return transition.sources is None or getattr(row, self.state_field) in transition.sources

    def set_state(self, request: HttpRequest, row: Any, transition: Transition) -> None:
        """Save the new state, and no other field. Raises ValidationError, but not for a revocation."""
        if transition.is_dangerous:
            row.save_restriction(**{self.state_field: transition.target})
        else:
            setattr(row, self.state_field, transition.target)
            row.save(update_fields=[self.state_field])

    def transition_view(self, request: HttpRequest, object_id: str, transition: Transition) -> HttpResponse:
        row: Model = self.get_object_or_404(request, object_id)
        page = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[quote(row.pk)])
        second = transition.second_confirmation(row)
        if request.method == "POST":
            if second is None or request.POST.get("confirm"):
                return self._execute(request, row, transition, page)
            messages.error(request, "Not done. Confirm it with the checkbox.")
        # What stops is counted here and not on POST: the transition itself waits for no count.
        impact = revocation_impact(row, transition.revokes_issued) if transition.is_dangerous else []
        context = {
            **self.admin_site.each_context(request),
            "title": transition.title.format(row=row),
            "transition": transition,
            "warning": transition.warning(row),
            "second_confirmation": second,
            "sentences": [
                *(sentence.format(row=row) for sentence in transition.consequences),
                *transition.details(row),
                *impact,
            ],
            "opts": self.opts,
            "original": row,
            "back": page,
        }
        return TemplateResponse(request, "tenants/admin/transition.html", context)

    def _execute(self, request: HttpRequest, row: Any, transition: Transition, page: str) -> HttpResponse:
        try:
            outcome = getattr(self, transition.method)(request, row, transition)
        except ValidationError as error:
            messages.error(request, "Not done. " + " ".join(error.messages))
            return redirect(page)
        done = outcome if isinstance(outcome, str) else transition.done.format(row=row)
        self.log_change(request, row, done)
        if isinstance(outcome, HttpResponse):
            return outcome
        messages.success(request, add_propagation_link(done) if isinstance(row, ConfigurationModel) else done)
        return redirect(page)


def revocation_impact(row: Model, revokes_issued: bool) -> list[str]:
    responses: list[tuple[Any, Any]] = collect_revocation_impact.send(
        sender=type(row), row=row, revokes_issued=revokes_issued
    )
    return [sentence for _, sentences in responses for sentence in sentences]


class EnabledAdmin(TransitionAdmin):
    state_field = "enabled"

    @display(description="Status", label={"enabled": "success", "disabled": "danger"})
    def status_label(self, row: Any) -> str:
        return "enabled" if row.enabled else "disabled"


def enable_transition(what: str, *consequences: str) -> Transition:
    return _enabled_transition("enable", what, consequences, target=True)


def disable_transition(what: str, *consequences: str) -> Transition:
    return _enabled_transition("disable", what, consequences, target=False)


def _enabled_transition(verb: str, what: str, consequences: tuple[str, ...], *, target: bool) -> Transition:
    return Transition(
        name=verb,
        label=verb.capitalize(),
        title=f"{verb.capitalize()} {what}?",
        consequences=consequences,
        done=f"{capfirst(what)} is {verb}d.",
        sources={not target},
        target=target,
        variant=ActionVariant.SUCCESS if target else ActionVariant.DANGER,
    )
