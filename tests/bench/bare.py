"""What is possible: the same requests through one bare aiohttp session, nothing kept.

`bare.py URL MIRROR IN_FLIGHT [TURNS]` prints what it took as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow.parquet as pq
from driver import peak_rss_mb


def bodies(mirror: Path) -> list[dict[str, Any]]:
    """Build the requests that the harness builds from the same rows."""
    found = []
    for path in sorted(mirror.rglob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            content: Any = row["question"]
            if row.get("image"):
                url = "data:image/jpeg;base64," + base64.b64encode(row["image"]["bytes"]).decode()
                content = [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": row["question"]},
                ]
            found.append(
                {
                    "model": "scripted",
                    "messages": [{"role": "user", "content": content}],
                    "max_tokens": 2048,
                    "temperature": 0.0,
                    "top_p": 1.0,
                    "seed": 0,
                }
            )
    return found


async def post_all(url: str, requests: list[dict[str, Any]], *, in_flight: int, turns: int) -> None:
    """Post every body, so many at a time, each `turns` times in a row; read every answer."""
    waiting = iter(requests)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            for body in waiting:
                for _ in range(turns):
                    async with session.post(f"{url}/chat/completions", json=body) as response:
                        reply = json.loads(await response.read())
                        reply["choices"][0]["message"]["content"]

        await asyncio.gather(*(work() for _ in range(in_flight)))


def main() -> None:
    """Measure the posting, not the reading of the rows."""
    url, mirror, in_flight = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    turns = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    requests = bodies(mirror)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.time()
    asyncio.run(post_all(url, requests, in_flight=in_flight, turns=turns))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = {
        "seconds": time.time() - started,
        "cpu_s": cpu_s,
        "peak_rss_mb": peak_rss_mb(),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
