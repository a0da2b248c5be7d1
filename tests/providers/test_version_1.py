"""Providers made for version 1 of the contract: they load, keep the contract, and are warned about."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from providers.version_1.names import KEYWORDS, MEMBERS, MODULES, NAMES
from providers.version_1.report import find_old_names
from tests.settings import ENVIRONMENT
from tests.support.paths import ROOT
from tests.support.project import run_command
from tests.support.waiting import PATIENCE

HERE = Path(__file__).parent / "version_1"
INSTALLED = ("line", "partner_jwt", "voucher")

SELECTED = " or ".join(f"[{name} or -{name}" for name in INSTALLED)

# What pytest runs where the three are installed, and a line that it then prints.
RUNS = {
    "tests of their own": (
        ["tests/providers/version_1"],
        "PASSED tests/providers/version_1/test_sign_on.py::test_a_voucher_signs_on_once",
    ),
    "the acceptance suite": (
        ["tests/providers/test_acceptance.py", "-k", SELECTED],
        "PASSED tests/providers/test_acceptance.py::test_prepare_does_not_block[partner_jwt]",
    ),
}


@pytest.mark.timeout(6 * PATIENCE)  # it runs pytest
@pytest.mark.parametrize(("words", "line"), RUNS.values(), ids=RUNS)
def test_providers_of_version_1_pass(tmp_path: Path, words: list[str], line: str) -> None:
    environment = {
        "AGS_PROVIDERS": ",".join(INSTALLED),
        "PYTHONPATH": str(HERE),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'x.sqlite3'}",
    }
    printed = run_command(ROOT, sys.executable, "-m", "pytest", "-n1", "-vv", *words, **environment)
    assert line in printed


def check(*providers: str) -> str:
    """What `manage.py check` prints. Fails when it finds an error."""
    environment = {"DJANGO_SETTINGS_MODULE": "ags.settings", "PYTHONPATH": str(HERE)}
    environment |= ENVIRONMENT | {"AGS_PROVIDERS": ",".join(providers)}
    return run_command(ROOT, sys.executable, "manage.py", "check", **environment)


def test_the_check_names_each_of_them_and_what_to_change() -> None:
    printed = check("providers.operator_token", *INSTALLED)
    named = re.findall(r"\(providers\.W002\) (\w+) is made for version 1 .+, which the next release", printed)
    assert named == sorted(INSTALLED)
    assert printed.count("Follow docs/upgrading-providers.md, and set `contract = 2`.") == len(INSTALLED)
    assert "strategy.py: Refusal -> FailureReason, Refused -> VerificationFailed, Strategy.is_non" in printed


@pytest.mark.parametrize("name", INSTALLED)
def test_each_of_them_loads_without_another_provider(name: str) -> None:
    assert f"(providers.W002) {name} is made" in check(name)


def test_the_check_says_nothing_of_a_provider_of_version_2() -> None:
    assert "providers.W002" not in check("providers.operator_token")


def test_the_old_names_are_there_only_where_a_provider_of_version_1_is_installed() -> None:
    code = "import django; django.setup(); from providers.contract import Refused"
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(HERE)}
    environment |= ENVIRONMENT
    installed = environment | {"AGS_PROVIDERS": f"{environment['AGS_PROVIDERS']},voucher"}
    for variables, status in ((environment, 1), (installed, 0)):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr


# What a module does with the contract, and what of it has another name.
USES: dict[str, tuple[str, dict[str, str]]] = {
    "an imported name": (
        "from providers.contract import Refused, Identity",
        {"Refused": "VerificationFailed"},
    ),
    "an imported name, under one of its own": (
        "from providers.contract import Outage as O\nO.SLOW",
        {"Outage": "UpstreamFailure", "Outage.SLOW": "UpstreamFailure.TIMEOUT"},
    ),
    "an import inside a function": (
        "def verify():\n    from providers.jose import prove",
        {"prove": "verify_jws"},
    ),
    "a name of a module": (
        "from providers import contract\ncontract.Refused(contract.Outage.SLOW.value)",
        {
            "Refused": "VerificationFailed",
            "Outage": "UpstreamFailure",
            "Outage.SLOW": "UpstreamFailure.TIMEOUT",
        },
    ),
    "a module that has moved": (
        "import providers.key_set.proof\nproviders.key_set.proof.prove_by",
        {
            "providers.key_set": "providers.jwks",
            "providers.key_set.proof": "providers.jwks.refetch",
            "prove_by": "verify_with_jwks",
        },
    ),
    "a module that has moved, by its package": (
        "from providers import key_set\nkey_set.prove_by",
        {"providers.key_set": "providers.jwks", "prove_by": "verify_with_jwks"},
    ),
    "a function that has the name of its module": (
        "from providers.key_set import entered\nfrom providers.key_set.entered import PublicKeysField",
        {
            "providers.key_set": "providers.jwks",
            "providers.key_set.entered": "providers.jwks.static_keys",
            "entered": "parse_static_keys",
        },
    ),
    "a function of a package that has moved": (
        "from providers.key_set import AlgorithmsField\nAlgorithmsField()",
        {"providers.key_set": "providers.jwks"},
    ),
    "a keyword argument": (
        "from providers.contract import SecretField\nSecretField(sent_to=(), label='x')",
        {"SecretField.sent_to": "SecretField.destination_settings"},
    ),
    "a keyword argument of a subclass": (
        "from providers.contract import SecretField\nclass PEM(SecretField): pass\nPEM(lines=True)",
        {"SecretField.lines": "SecretField.multiline"},
    ),
    "an attribute of what is caught": (
        "from providers import contract\ntry: f()\nexcept (contract.Refused, OSError) as e: e.refusal, e.x",
        {"Refused": "VerificationFailed", "Refused.refusal": "VerificationFailed.reason"},
    ),
    "an attribute of an argument": (
        "from providers.contract import KeyRing\ndef f(keys: KeyRing | None): return keys.decoy, keys.tenant",
        {"KeyRing.decoy": "KeyRing.dummy_key"},
    ),
    "an attribute of an argument of a generic class": (
        "from providers.upstream import Document\ndef f(*, d: Document[int]): d.newer(1), d.current()",
        {"Document.newer": "Document.refresh"},
    ),
    "a keyword argument of a function": (
        "from providers.jose import prove as verify\nverify(media_type='JWT', kids=1)",
        {"prove": "verify_jws", "prove.kids": "verify_jws.kid_pattern"},
    ),
    "a pattern": (
        "from providers.contract import Finding\nmatch f():\n    case Finding(good=True): pass",
        {"Finding": "CheckResult", "Finding.good": "CheckResult.passed"},
    ),
    "what a strategy declares": (
        "from providers.contract import Strategy\n"
        "class S(Strategy):\n    is_nonblocking: bool = True\n    def documents(self): self.declaration",
        {
            "Strategy.is_nonblocking": "not Strategy.blocking",
            "Strategy.documents": "Strategy.document_urls",
            "Strategy.declaration": "Strategy.parameter_schema",
        },
    ),
    "the same names of something else": (
        "from elsewhere import Refused, contract, SecretField, Strategy\nimport json\n"
        "SecretField(sent_to=(), lines=1)\njson.text\ncontract.Refused\n"
        "x.refusal, x.outage, x.ring, x.findings\n"
        "class S(Strategy):\n    is_nonblocking = True\n    def documents(self): self.declaration\n"
        "def text(good, sentence, decoy, Outage): Outage.SLOW",
        {},
    ),
    "names of version 2": (
        "from providers.contract import FailureReason, SecretField, VerificationFailed\n"
        "SecretField(destination_settings=())\ntry: f()\nexcept VerificationFailed as e: e.reason",
        {},
    ),
    "no Python": ("from providers.contract import Refused\nprint 'x'", {}),
    "no text": ("from providers.contract import Refused\0", {}),
}


@pytest.mark.parametrize(("source", "names"), USES.values(), ids=USES)
def test_the_old_names_that_a_module_uses_are_found(source: str, names: dict[str, str]) -> None:
    assert find_old_names(source.encode()) == names


def test_the_page_has_every_old_name_beside_its_new_one() -> None:
    rows = re.findall(
        r"^\| (.+?) \| (.+?) \|", (ROOT / "docs/upgrading-providers.md").read_text(), re.MULTILINE
    )
    told = [[{*re.findall(r"[\w.]+", cell), *re.findall(r"\w+", cell)} for cell in row] for row in rows]
    renamed = [*MODULES.items()]
    for names in (*NAMES.values(), *MEMBERS.values(), *KEYWORDS.values()):
        renamed.extend(names.items())
    missing = [pair for pair in renamed if not any(pair[0] in old and pair[1] in new for old, new in told)]
    assert not missing
