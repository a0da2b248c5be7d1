"""Head-ends whose requests are signed before a round, so that the round measures AGS only."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from bench.load import Conversation
from bench.systems.asking import KID, SERVICE, TENANT, get_session_token, operator_token

ISSUED = rb'^\{"sessionToken": ?"[a-z2-7]{26}"\}$'


@dataclass(frozen=True, slots=True)
class HeadEnd:
    """The tenant of a head-end, the service it requests, and the key it signs with."""

    tenant: str = TENANT
    service: str = SERVICE
    kid: str = KID

    def request(self, *, jti: bool = False) -> bytes:
        """Return a request for a session token of a new account."""
        more = {"jti": str(uuid4())} if jti else {}
        proof = operator_token(str(uuid4()), self.tenant, self.kid, **more)
        return get_session_token(self.tenant, self.service, proof)


def requests(of: Sequence[HeadEnd], number: int, *, jti: bool = False) -> list[bytes]:
    """Return `number` requests, each of a random head-end."""
    return [head_end.request(jti=jti) for head_end in random.choices(of, k=number)]  # noqa: S311 - not a secret


def conversations(ready: Iterable[bytes], number: int) -> list[Conversation]:
    """Return conversations that share the requests. The round ends when there are none left."""
    shared = iter(ready)
    return [_asking(shared) for _ in range(number)]


def paced(ready: Iterable[bytes], per_second: float) -> Iterator[bytes]:
    """Yield the requests at a rate. Responses wait meanwhile, so their latencies have no meaning."""
    began = time.perf_counter()
    for number, request in zip(itertools.count(), ready, strict=False):
        time.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        yield request


def _asking(ready: Iterator[bytes]) -> Conversation:
    for request in ready:
        answer = yield request
        answer.expect(200, ISSUED)
