"""The authorization server of the tests is one: what the providers are shown comes from it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import jwt
import pytest

from tests.support.upstream import oidc_provider
from tests.support.upstream.authority import authority
from tests.support.upstream.oidc_provider import FOLDER, OidcProvider
from tests.support.waiting import PATIENCE


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with OidcProvider() as running:
        yield running


def get(url: str) -> Any:
    context = ssl.create_default_context(cafile=str(authority().file))
    with urlopen(url, timeout=PATIENCE, context=context) as answer:
        return json.load(answer)


def keys_of(provider: OidcProvider) -> dict[str, jwt.PyJWK]:
    published = get(get(provider.discovery)["jwks_uri"])
    return {key.key_id: key for key in jwt.PyJWKSet.from_dict(published).keys if key.key_id}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_an_id_token_is_signed_with_a_key_that_it_publishes(provider: OidcProvider, algorithm: str) -> None:
    token = provider.id_token("account-1", algorithm=algorithm, nonce="n", claims={"azp": "x"}, expires_in=60)
    header = jwt.get_unverified_header(token)
    client = provider.client_id(algorithm)
    assert header["alg"] == algorithm
    claims = jwt.decode(
        token, keys_of(provider)[header["kid"]], [algorithm], audience=client, issuer=provider.issuer
    )
    assert (claims["sub"], claims["nonce"], claims["azp"]) == ("account-1", "n", "x")
    assert claims["exp"] - claims["iat"] in {59, 60}, "it reads its clock twice"
    assert get(provider.discovery)["issuer"] == provider.issuer
    assert get(provider.discovery)["introspection_endpoint"] == provider.introspection


def test_its_keys_rotate_with_and_without_those_before(provider: OidcProvider) -> None:
    first = set(keys_of(provider))
    provider.rotate(keep=True)
    second = set(keys_of(provider))
    assert first < second
    assert jwt.get_unverified_header(provider.id_token("account-1"))["kid"] in second - first
    provider.rotate(keep=False)
    assert not second & set(keys_of(provider))


def test_a_server_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority(), "server_key", FOLDER / "nothing.key")
    with pytest.raises(RuntimeError, match=r"nothing\.key"), OidcProvider():
        pytest.fail("it has started")


@pytest.mark.parametrize(("name", "value"), [("PATH", ""), ("FOLDER", None)])
def test_where_it_is_missing_the_test_is_left_out_with_that_reason(
    name: str, value: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    if name == "PATH":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setattr(oidc_provider, "FOLDER", tmp_path)
    with pytest.raises(pytest.skip.Exception, match="not on this machine: "), OidcProvider():
        pytest.fail("it is not missing")


def test_the_lock_file_names_no_registry_and_each_package_by_its_digest() -> None:
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    del packages[""]
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages.values())
