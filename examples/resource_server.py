r"""What a service does that is called with an access token: verify it, with the published key set alone.

Copy what you need. It uses PyJWT. AGS is asked for the key set now and then, and never about a token.

    python examples/resource_server.py --url http://127.0.0.1:8000 --tenant nagra < access-token
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any
from urllib.parse import urlencode

import jwt


class ResourceServer:
    """A service of one operator."""

    def __init__(self, url: str, tenant: str, *, issuer: str = "ags", audience: str | None = None) -> None:
        self.tenant = tenant
        self.issuer = issuer
        self.audience = tenant if audience is None else audience
        self.key_set = f"{url}/.well-known/jwks.json?{urlencode({'tenant': tenant})}"
        # Keeps the set for five minutes, and reads it again at once when a token names a key that is new.
        self.keys = jwt.PyJWKClient(self.key_set)

    def verified(self, access_token: str) -> dict[str, Any]:
        """Return the claims. Raises `jwt.PyJWTError`.

        The algorithm is said here, and not by the token.
        """
        claims: dict[str, Any] = jwt.decode(
            access_token,
            self.keys.get_signing_key_from_jwt(access_token),
            ["ES256"],
            issuer=self.issuer,
            audience=self.audience,
            options={"require": ["exp", "iss", "aud"]},
        )
        if claims.get("typ") != "DevAuthN" or claims.get("tenantId") != self.tenant:
            raise jwt.InvalidTokenError("this is no access token of the tenant")
        return claims


def main() -> None:
    """Read the arguments and the token, and show what it says."""
    parser = argparse.ArgumentParser(description="Verify an access token, given on standard input.")
    parser.add_argument("--url", required=True, help="where AGS is, such as http://127.0.0.1:8000")
    parser.add_argument("--tenant", required=True, help="the tenant ID")
    arguments = parser.parse_args()
    server = ResourceServer(arguments.url.rstrip("/"), arguments.tenant)
    try:
        print(json.dumps(server.verified(sys.stdin.read().strip()), indent=2))
    except jwt.PyJWTError as problem:
        sys.exit(f"resource_server: {problem}")


if __name__ == "__main__":
    main()
