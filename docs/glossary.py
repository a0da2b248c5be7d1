"""The glossary, docs/glossary.md, from the docstrings of classes; `make docs` writes it."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from django.apps import apps
from django.db.models import Model

from ags.sessions.tokens.client_tokens import AccessToken, RefreshToken, SignOn
from providers import contract
from providers.apps import ProviderConfig
from providers.upstream.bulkhead import Bulkhead
from providers.upstream.documents import Document
from tenants import tenant_snapshot
from tenants.admin.transitions import Transition
from tenants.snapshot import Snapshot

PAGE = Path(__file__).with_name("glossary.md")
ROOT = PAGE.parent.parent

TERMS = {
    "access token": AccessToken,
    "bulkhead": Bulkhead,
    "document": Document,
    "provider": ProviderConfig,
    "refresh token": RefreshToken,
    "sign-on": SignOn,
    "snapshot": Snapshot,
    "transition": Transition,
}
"""Terms of classes that are no models, and belong neither to the contract nor to the snapshot of a tenant."""

CONTRACT_TERMS = {"Account": "account of a choice", "HTTPSField": "HTTPS field"}
"""Terms of classes of the contract whose names say something else."""

INTRODUCTION = """\
# Glossary

The terms of AGS, each with the first paragraph of the docstring of its class.
This page is generated: `make docs` writes it from the code, and a test compares.

| term | meaning | class |
| --- | --- | --- |
"""


def page() -> str:
    """Return the page."""
    classes = [*TERMS.items(), *_models(), *_contract(), *_tenant_snapshot()]
    rows = [
        f"| {term} | {_meaning(of_term)} | [`{of_term.__name__}`](../{_file(of_term)}) |"
        for term, of_term in sorted(classes, key=lambda entry: entry[0].lower())
    ]
    return INTRODUCTION + "\n".join(rows) + "\n"


def _models() -> Iterator[tuple[str, type[Model]]]:
    for model in apps.get_models():
        # The models of history, which a library generates, belong to no module `models`.
        is_ours = model.__module__.startswith(
            ("ags.sessions.models", "ags.explanations.models", "tenants.models")
        )
        if is_ours and not model._meta.proxy:
            yield str(model._meta.verbose_name), model


def _contract() -> Iterator[tuple[str, type]]:
    for name in contract.__all__:
        value = getattr(contract, name)
        if inspect.isclass(value):
            yield CONTRACT_TERMS.get(name) or _words(name), value


def _tenant_snapshot() -> Iterator[tuple[str, type]]:
    for name, value in vars(tenant_snapshot).items():
        if inspect.isclass(value) and value.__module__ == tenant_snapshot.__name__:
            yield _words(name), value


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _meaning(of_term: type) -> str:
    paragraph, *_ = inspect.cleandoc(of_term.__doc__ or "").split("\n\n")
    return " ".join(paragraph.split()).replace("|", "\\|")


def _file(of_term: type) -> str:
    return str(Path(inspect.getsourcefile(of_term) or "").relative_to(ROOT))
