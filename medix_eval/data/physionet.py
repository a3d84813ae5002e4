"""Fetch the X-rays of MIMIC-CXR from PhysioNet, with the user's own account.

The account comes from the environment (`PHYSIONET_USERNAME`, `PHYSIONET_PASSWORD`) or from netrc,
and goes to physionet.org only, over TLS: addresses come from a table that anyone could have
written. Tests run a server on this machine, which may be asked too.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import netrc
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from medix_eval.errors import ConfigError, DatasetError, full_disk, one_line
from medix_eval.storage.images import damage
from medix_eval.storage.mirror import Mirror, MirrorFile

_LOG = logging.getLogger(__name__)
_HOST = "physionet.org"
_AT_ONCE = 4
_TRIES = 5
_FIRST_WAIT_S = 0.5
_CHUNK = 1 << 16
_SAVE_EVERY = 50
_NAMED = 3
_AGREEMENT = (
    "the account must be credentialed and have signed the data use agreement of MIMIC-CXR-JPG"
)


@dataclass(slots=True, kw_only=True)
class XRays:
    """The images of one dataset, on their way into a folder of its mirror."""

    folder: Path
    """The dataset's folder in the mirror."""
    place: str
    """Folder of the images in it, such as `files`."""
    manifest: Mirror
    account: str = field(default="", repr=False)
    """The value of the header that names the account."""
    num_fetched: int = 0
    _failed: dict[str, str] = field(default_factory=dict)

    async def fetch(self, addresses: Iterable[str]) -> None:
        """Download what is not there yet, a few at a time; what arrived is kept, whatever fails."""
        wanted = {Path(address).name: address for address in addresses}
        missing = {name: address for name, address in wanted.items() if not self._is_here(name)}
        for address in missing.values():
            _refuse_stranger(address)
        if not missing:
            return
        self.account = self.account or _account()
        (self.folder / self.place).mkdir(mode=0o700, exist_ok=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
        try:
            async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
                waiting = iter(missing.items())
                async with asyncio.TaskGroup() as group:
                    for _ in range(_AT_ONCE):
                        group.create_task(self._work(session, waiting))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self.manifest.write(self.folder)
        if self._failed:
            named = "; ".join(f"{name}: {why}" for name, why in list(self._failed.items())[:_NAMED])
            raise DatasetError(
                f"images not fetched: {len(self._failed)} of {len(missing)}: {named}",
                hint="fetched images are kept: pull again for the rest",
            )

    async def _work(self, session: aiohttp.ClientSession, left: Iterable[tuple[str, str]]) -> None:
        for name, address in left:
            for number in range(1, _TRIES + 1):
                try:
                    await self._one(session, address, self.folder / self.place / name)
                except (aiohttp.ClientError, TimeoutError) as error:
                    if number == _TRIES:
                        self._failed[name] = one_line(error)
                    await asyncio.sleep(_FIRST_WAIT_S * 2.0 ** (number - 1))
                else:
                    self._keep(name)
                    break

    async def _one(self, session: aiohttp.ClientSession, address: str, path: Path) -> None:
        """Download one file through a part beside it, from where an earlier try ended."""
        part = path.with_name(f".{path.name}.part")
        start = part.stat().st_size if part.exists() else 0
        headers = {"Authorization": self.account}
        if start:
            headers["Range"] = f"bytes={start}-"
        async with session.get(address, headers=headers, allow_redirects=False) as reply:
            if reply.status == 416:  # noqa: PLR2004 (the part is not of this file)
                part.unlink()
                raise aiohttp.ClientPayloadError("the partial file does not match; starting over")
            _explain(reply.status, path.name)
            resumed = reply.status == 206  # noqa: PLR2004
            try:
                descriptor = os.open(part, os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(descriptor, "r+b" if resumed else "wb") as file:
                    file.seek(0, os.SEEK_END if resumed else os.SEEK_SET)
                    async for chunk in reply.content.iter_chunked(_CHUNK):
                        file.write(chunk)
            except OSError as error:
                raise _disk_error(error, self.folder) from error
        if problem := damage(part.read_bytes()):
            part.unlink()
            raise aiohttp.ClientPayloadError(f"the download is not an image: {problem}")
        part.replace(path)

    def _is_here(self, name: str) -> bool:
        listed = self.manifest.files.get(f"{self.place}/{name}")
        path = self.folder / self.place / name
        return listed is not None and path.is_file() and path.stat().st_size == listed.bytes

    def _keep(self, name: str) -> None:
        key = f"{self.place}/{name}"
        files = {**self.manifest.files, key: MirrorFile.of(self.folder / key)}
        self.manifest = self.manifest.model_copy(update={"files": files})
        self.num_fetched += 1
        if self.num_fetched % _SAVE_EVERY == 0:
            self.manifest.write(self.folder)
            _LOG.info("%d images fetched", self.num_fetched)


def _account(environment: Mapping[str, str] = os.environ) -> str:
    """Return the header of the user's account; it never stands in an argument or in a log."""
    name = environment.get("PHYSIONET_USERNAME")
    secret = environment.get("PHYSIONET_PASSWORD")
    if name and secret:
        return _basic(name, secret)
    try:
        found = netrc.netrc(environment.get("NETRC")).authenticators(_HOST)
    except FileNotFoundError:
        found = None
    except (netrc.NetrcParseError, OSError) as error:
        raise ConfigError(f"netrc cannot be read: {type(error).__name__}") from error
    if found is None:
        raise ConfigError(
            "the images of MIMIC-CXR need a PhysioNet account, and none is set",
            hint="set PHYSIONET_USERNAME and PHYSIONET_PASSWORD, or add it to netrc as "
            f"machine {_HOST}; {_AGREEMENT}",
        )
    return _basic(found[0], found[2])


def _basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def _refuse_stranger(address: str) -> None:
    """Raise where an address of the table would send the account to anybody else."""
    url = urlsplit(address)
    host = url.hostname or ""
    if url.scheme == "https" and host == _HOST:
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise DatasetError(
        f"the table names an image on {host or 'no host'} by {url.scheme or 'no scheme'}; "
        f"the account is sent to https://{_HOST} only",
        hint="check that it is the right table",
    )


def _explain(status: int, name: str) -> None:
    """Say what PhysioNet's answer means; what asking again cannot mend stops everything."""
    if status in {200, 206}:
        return
    if status == 401:  # noqa: PLR2004
        raise ConfigError(
            "PhysioNet rejected the user name or password (401)",
            hint="check PHYSIONET_USERNAME and PHYSIONET_PASSWORD, or netrc",
        )
    if status == 403 or 300 <= status < 400:  # noqa: PLR2004
        raise ConfigError(f"PhysioNet denied access to this account ({status})", hint=_AGREEMENT)
    if status in {404, 410}:
        raise DatasetError(f"PhysioNet has no file {name} ({status})")
    raise aiohttp.ClientPayloadError(f"PhysioNet answered {status}")


def _disk_error(error: OSError, folder: Path) -> Exception:
    """Tell a disk that is full from a connection that broke; aiohttp's errors are both."""
    if isinstance(error, aiohttp.ClientError):
        return error
    if full_disk(error):
        return ConfigError(
            f"the disk is full: the images do not fit into {folder}",
            hint="fetched images are kept; free some space and pull again",
        )
    return ConfigError(f"{folder} cannot be written to: {error.strerror}")
