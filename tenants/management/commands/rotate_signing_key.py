"""`manage.py rotate_signing_key TENANT`: the next step of a rotation."""

from __future__ import annotations

import base64
import os
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.models import Algorithm, KeyState, Tenant
from tenants.rotation import TooSoon, advance


class Command(BaseCommand):
    """Publish a new key, let it sign, withdraw the old one: three runs, with time between them."""

    help = (
        "Do the next step of rotating the key that signs a tenant's access tokens: publish a new one, let it "
        "sign, withdraw the old one. Refuses to go too fast, and says when to come back. Exit status: 0 a "
        "step is done, 1 nothing is done."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("tenant", help="the tenant ID")
        parser.add_argument(
            "--secret-env",
            metavar="NAME",
            help="where HS256 is used: the variable that holds the secret of the new key in base64; without "
            "it one is generated and printed, once",
        )

    def handle(self, *args: Any, tenant: str, secret_env: str | None, **options: Any) -> None:
        """Do the step and tell."""
        try:
            told, key = advance(tenant, secret=None if secret_env is None else _secret(secret_env))
        except Tenant.DoesNotExist:
            raise CommandError(f"There is no tenant {tenant}.") from None
        except TooSoon as reason:
            raise CommandError(f"Too soon: {reason}.") from None
        except ValidationError as problem:
            raise CommandError(" ".join(problem.messages)) from None
        self.stdout.write(f"{key.kid}: {told}")
        if key.state == KeyState.STAGED and key.algorithm == Algorithm.HS256 and secret_env is None:
            self.stdout.write(
                f"secret, in base64, shown this once: {base64.b64encode(key.secret()).decode()}"
            )


def _secret(variable: str) -> bytes:
    try:
        return base64.b64decode(os.environ[variable], validate=True)
    except KeyError:
        raise CommandError(f"The variable {variable} is not set.") from None
    except ValueError:
        raise CommandError(f"The variable {variable} does not hold base64.") from None
