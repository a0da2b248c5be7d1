"""Storing the results of fetching upstream documents."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.utils import Error

from ags.database import get_serving_loop, run_with_orm
from ags.database.batching import Batcher
from providers.upstream import Document
from tenants.services.upstream_health import record_fetches

log = logging.getLogger(__name__)


def store(document: Document[Any], **_: Any) -> None:
    """Store the result of a fetch. Database errors are only logged.

    Called in the thread that fetched. If the thread has no database connection and an event loop serves
    requests, the loop stores the result through its connection for the ORM.
    """
    has_connection = connection.connection is not None
    loop = get_serving_loop()
    if loop is not None and not has_connection:
        asyncio.run_coroutine_threadsafe(_store_in_loop(document), loop)
        return
    try:
        record_fetches([document])
    except Error as error:
        _warn(error)
    finally:
        if not has_connection:
            connection.close()


async def _store_in_loop(document: Document[Any]) -> None:
    try:
        await _batcher.submit(document)
    except Error as error:
        _warn(error)


async def _store_all(documents: Sequence[Document[Any]]) -> Sequence[None]:
    await run_with_orm(record_fetches, documents)
    return [None] * len(documents)


_batcher = Batcher(
    "document_health", _store_all
)  # requests wait for the same connection, so that it should be used rarely


def _warn(error: Error) -> None:
    log.warning("health of a document not stored: %s", type(error).__name__)
