"""What git and the image must not take in: files that hold secrets."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        (".env", True),
        (".env.production", True),
        ("docker/.env", True),
        ("ags/.env.local", True),
        ("var/demo.env", True),
        ("docker/secrets/key", True),
        (".env.example", False),
    ],
)
def test_git_ignores_what_holds_secrets(path: str, ignored: bool) -> None:
    # --no-index: also what is committed is looked up in the rules.
    words = ["git", "-C", str(ROOT), "check-ignore", "--quiet", "--no-index", path]
    assert (subprocess.run(words, check=False).returncode == 0) is ignored


def test_the_image_takes_in_no_environment_file() -> None:
    # The last rule that matches decides; the folders of the code are let in before.
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = max(number for number, rule in enumerate(rules) if rule.startswith("!"))
    assert {"**/.env", "**/.env.*"} <= set(rules[admitted:])
