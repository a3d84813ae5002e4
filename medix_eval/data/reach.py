"""Whether the dataset hub answers from here: found out in seconds, for its libraries try for long.

They repeat every request for half a minute, for each dataset anew. Out of reach they are told to
stay offline, which leaves them what an earlier download has left in the cache.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from urllib.parse import urlsplit
from urllib.request import getproxies

import datasets.config
from huggingface_hub import constants

from medix_eval.errors import DatasetError

_WAIT_S = 4.0
"""For an address and a connection together."""
_NEXT_ADDRESS_S = 0.25


@contextmanager
def offline_if_out_of_reach(task: str, dataset: str) -> Iterator[None]:
    """Keep the hub's libraries offline inside, and say why, where the hub does not answer."""
    if constants.HF_HUB_OFFLINE or _answers(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    except DatasetError as error:
        if not isinstance(error.__cause__, ConnectionError):
            raise  # the copy in the cache is at fault
        raise DatasetError(
            f"task {task}: {dataset} is not here, and {constants.ENDPOINT} cannot be reached",
            hint=error.hint,
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = False


@cache
def _answers(address: str) -> bool:
    parts = urlsplit(address)
    if {parts.scheme, "all"} & getproxies().keys():  # then only the proxy knows, and it is near
        return True
    reached = threading.Event()

    async def connect() -> None:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        # All of its addresses side by side: a network may lose one family of them in silence.
        _, writer = await asyncio.open_connection(
            parts.hostname, port, happy_eyeballs_delay=_NEXT_ADDRESS_S
        )
        writer.close()
        reached.set()

    def reach() -> None:
        with suppress(OSError, ValueError):
            asyncio.run(connect())

    # A thread, because a name that nobody resolves has no time-out of its own.
    thread = threading.Thread(target=reach, daemon=True)
    thread.start()
    thread.join(_WAIT_S)
    return reached.is_set()
