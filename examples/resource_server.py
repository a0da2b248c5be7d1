r"""A resource server: it verifies access tokens offline, with the published key set.

Copy what you need. It uses PyJWT, which fetches the key set from AGS now and then.

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
    """A resource server of one operator."""

    def __init__(self, url: str, tenant: str, *, issuer: str = "ags", audience: str | None = None) -> None:
        self.tenant = tenant
        self.issuer = issuer
        self.audience = tenant if audience is None else audience
        self.jwks_url = f"{url}/.well-known/jwks.json?{urlencode({'tenant': tenant})}"
        # Caches the key set for five minutes, and fetches it again for an unknown key ID, after 30 s at the
        # earliest. The set contains the key that signs next, so a rotation needs no fetch.
        self.keys = jwt.PyJWKClient(self.jwks_url)

    def verify(self, access_token: str) -> dict[str, Any]:
        """Return the claims. Raises `jwt.PyJWTError`.

        The algorithm is fixed here; that in the header of the token is not trusted.
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
            raise jwt.InvalidTokenError("not an access token of the tenant")
        return claims


def main() -> None:
    parser = argparse.ArgumentParser(description="Verify an access token, given on standard input.")
    parser.add_argument("--url", required=True, help="the URL of AGS, such as http://127.0.0.1:8000")
    parser.add_argument("--tenant", required=True, help="the tenant ID")
    arguments = parser.parse_args()
    server = ResourceServer(arguments.url.rstrip("/"), arguments.tenant)
    try:
        print(json.dumps(server.verify(sys.stdin.read().strip()), indent=2))
    except jwt.PyJWTError as error:
        sys.exit(f"resource_server: {error}")


if __name__ == "__main__":
    main()
