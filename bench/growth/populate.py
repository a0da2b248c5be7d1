"""Fill databases with session tokens, tenants and keys."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from bench import machine
from bench.growth.side import apply
from bench.head_end import HeadEnd
from bench.systems.ags import KID, SERVICE, TENANT

CHUNK = 100_000
TENANTS_A_FILE = 100

_ROWS = """
INSERT INTO ags_sessions_sessiontoken
       (tenant_id, service_id, key_id, token_hash, account_id, correlation_id, kid, client_address, jti,
        created_at, expires_at, dead_after,
        redeemed_at, redemption_correlation_id, redemption_address, client_id)
SELECT %(tenant)s, s.id, k.id, sha256(uuid_send(gen_random_uuid())),
       md5('account' || floor(random() * %(accounts)s))::uuid::text, gen_random_uuid()::text, k.kid,
       '192.0.2.1', gen_random_uuid()::text,
       r.at, r.at + r.good_for, r.at + r.good_for + interval '90 seconds',
       CASE WHEN r.is_redeemed THEN r.at + interval '20 seconds' END,
       CASE WHEN r.is_redeemed THEN gen_random_uuid()::text END,
       CASE WHEN r.is_redeemed THEN '198.51.100.1'::inet END,
       CASE WHEN r.is_redeemed THEN replace(gen_random_uuid()::text, '-', '') END
  FROM (SELECT statement_timestamp() + %(from)s * interval '1 second'
               + n * interval '1 second' * %(step)s AS at, %(ttl)s * interval '1 second' AS good_for,
               random() < 0.5 AS is_redeemed
          FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) r
  JOIN tenants_service s ON s.tenant_id = %(tenant)s AND s.name = %(service)s
  JOIN tenants_key k ON k.tenant_id = %(tenant)s AND k.kid = %(kid)s
"""

WEEK, HOUR = 7 * 24 * 3600, 3600

RETENTION = 30 * 24 * HOUR
"""The default of `Tenant.event_retention`, in seconds."""


def fill(database: str, dead: int, living: int) -> None:
    """Insert rows as `issue` does: those of a week before the retention, and valid ones of the last hour.

    The valid ones, which a purge must keep, expire after a day. As in production they are inserted last,
    after a checkpoint and a vacuum.
    """
    begin = -RETENTION - WEEK - HOUR
    _insert(database, dead, "expired", {"from": begin, "step": WEEK / max(dead, 1), "ttl": 300})
    _maintain(database, "VACUUM (ANALYZE) ags_sessions_sessiontoken", "CHECKPOINT")
    _insert(database, living, "valid", {"from": -HOUR, "step": HOUR / max(living, 1), "ttl": 24 * HOUR})
    _maintain(database, "VACUUM (ANALYZE) ags_sessions_sessiontoken")


def _insert(database: str, number: int, what: str, values: Mapping[str, Any]) -> None:
    began = time.perf_counter()

    def chunk(first: int) -> None:
        with psycopg.connect(database) as connection:
            more = {
                "tenant": TENANT,
                "service": SERVICE,
                "kid": KID,
                "accounts": max(number // 10, 1),
                "first": first,
                "last": min(first + CHUNK, number) - 1,
            }
            connection.execute(_ROWS, {**values, **more})

    with ThreadPoolExecutor(machine.CPUS) as pool:
        for done, _ in enumerate(pool.map(chunk, range(0, number, CHUNK)), start=1):
            if done % 10 == 0:
                at = time.perf_counter() - began
                print(f"  {done * CHUNK:,} {what} rows inserted, {done * CHUNK / at:,.0f}/s", flush=True)


def _maintain(database: str, *statements: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def many_tenants(settings: Mapping[str, str], tenants: int, services: int, keys: int) -> list[HeadEnd]:
    """Create tenants with `manage.py apply`; return a head-end for each of their services and keys."""
    began = time.perf_counter()
    names = [f"tenant-{number:04}" for number in range(tenants)]
    for first in range(0, tenants, TENANTS_A_FILE):
        some = names[first : first + TENANTS_A_FILE]
        apply(settings, {"tenants": [_tenant(name, services, keys) for name in some]})
        done, at = first + len(some), time.perf_counter() - began
        print(f"  {done} tenants of {services} services and {keys} keys created in {at:.0f} s", flush=True)
    return [
        HeadEnd(name, f"Service {service}", f"{name}-key-{key}")
        for name in names
        for service in range(services)
        for key in range(keys)
    ]


def many_keys(settings: Mapping[str, str], keys: int) -> list[HeadEnd]:
    """Add keys to the tenant of all benchmarks; return a head-end for each."""
    kids = [f"key-{number}" for number in range(keys - 1)]
    apply(settings, {"tenants": [{"id": TENANT, "keys": [key(kid) for kid in kids]}]})
    return [HeadEnd(kid=kid) for kid in (KID, *kids)]


def key(kid: str, **more: Any) -> dict[str, Any]:
    """Return a key in the form of `manage.py apply`.

    All keys have the same secret, so that one variable is enough. It is encrypted for each key separately.
    """
    secret = {"env": "BENCH_SECRET", "encoding": "base64"}
    return {"kid": kid, "algorithm": "HS256", "state": "active", "secret": secret, **more}


def _tenant(name: str, services: int, keys: int) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "services": list(_services(services)),
        "keys": [key(f"{name}-key-{number}") for number in range(keys)],
    }


def _services(number: int) -> Iterator[dict[str, Any]]:
    for place in range(number):
        name = f"Service {place}"
        yield {"name": name, "strategy": "operator_token", "enabled": True, "display_name": name}
