"""`manage.py rotate_signing_key TENANT`: perform the next step of a key rotation."""

import base64
import os
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.models import Algorithm, KeyState, Tenant
from tenants.rotation import RotationTooEarly, perform_next_step


class Command(BaseCommand):
    """Activate the published key, revoke the old one: two runs, with time between them.

    A tenant with HS256 needs three: its next key is not published beforehand.
    """

    help = (
        "Perform the next step of rotating the signing key of a tenant: activate the key that is published, "
        "revoke the old key, or publish a new key if none is. If the step is not due yet, nothing is "
        "changed, and the message gives the time from which it is due. Exit status: 0 if a step was "
        "performed, 1 otherwise."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant", help="tenant ID")
        parser.add_argument(
            "--secret-env",
            metavar="NAME",
            help="for HS256: the environment variable with the secret of the new key in base64; without it, "
            "a secret is generated and printed once",
        )

    def handle(self, *args: Any, tenant: str, secret_env: str | None, **options: Any) -> None:
        secret = None if secret_env is None else _read_secret(secret_env)
        try:
            message, key = perform_next_step(tenant, secret=secret)
        except Tenant.DoesNotExist:
            raise CommandError(f"Tenant {tenant} does not exist.") from None
        except RotationTooEarly as reason:
            raise CommandError(f"Too early: {reason}.") from None
        except ValidationError as problem:
            raise CommandError(" ".join(problem.messages)) from None
        self.stdout.write(f"{key.kid}: {message}")
        if key.state == KeyState.STAGED and key.algorithm == Algorithm.HS256 and secret_env is None:
            self.stdout.write(f"secret in base64, shown only once: {base64.b64encode(key.secret()).decode()}")


def _read_secret(variable: str) -> bytes:
    try:
        return base64.b64decode(os.environ[variable], validate=True)
    except KeyError:
        raise CommandError(f"The variable {variable} is not set.") from None
    except ValueError:
        raise CommandError(f"The variable {variable} is not valid base64.") from None
