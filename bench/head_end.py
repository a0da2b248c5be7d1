"""Head-ends that have signed everything beforehand, so that a round measures AGS and not them."""

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
    """Whose back office it is, for which service it asks, and which key it signs with."""

    tenant: str = TENANT
    service: str = SERVICE
    kid: str = KID

    def request(self, *, jti: bool = False) -> bytes:
        """Return a request for a session token of an account that nobody has named yet."""
        more = {"jti": str(uuid4())} if jti else {}
        proof = operator_token(str(uuid4()), self.tenant, self.kid, **more)
        return get_session_token(self.tenant, self.service, proof)


def requests(of: Sequence[HeadEnd], number: int, *, jti: bool = False) -> list[bytes]:
    """Return so many requests, each of a head-end taken at random."""
    return [head_end.request(jti=jti) for head_end in random.choices(of, k=number)]  # noqa: S311 - any will do


def conversations(ready: Iterable[bytes], number: int) -> list[Conversation]:
    """Return conversations that share the requests; the first that finds none left ends the round."""
    shared = iter(ready)
    return [_asking(shared) for _ in range(number)]


def paced(ready: Iterable[bytes], per_second: float) -> Iterator[bytes]:
    """Give out the requests no faster than that. Answers wait meanwhile, so their times mean nothing."""
    began = time.perf_counter()
    for number, request in zip(itertools.count(), ready, strict=False):
        time.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        yield request


def _asking(ready: Iterator[bytes]) -> Conversation:
    for request in ready:
        answer = yield request
        answer.demand(200, ISSUED)
