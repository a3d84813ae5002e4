"""The X-rays of MIMIC-CXR, from a local server that asks for an account as PhysioNet does."""

from __future__ import annotations

import base64
import io
import json
import logging
import shutil
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import datasets
import pytest
from PIL import Image

from medix_eval.data import physionet
from medix_eval.data import pull as pull_module
from medix_eval.data.hub import HubDataset, HubFile
from medix_eval.data.lm_task import open_task
from medix_eval.data.physionet import XRays
from medix_eval.data.pull import pull
from medix_eval.data.tasks import load_tasks
from medix_eval.errors import ConfigError, DatasetError
from medix_eval.storage.bundled import bundled
from medix_eval.storage.mirror import Mirror, MirrorFile, load_manifest

SECRET = "correct horse battery"
BASIC = "Basic " + base64.b64encode(f"reader:{SECRET}".encode()).decode()


class PhysioNet(ThreadingHTTPServer):
    """Serves `/files/NAME` to one account."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ranges: list[str] = []
        self.asked: list[str] = []
        self.cut: set[str] = set()
        """Files of which the next reply ends after half of the bytes."""
        self.busy: dict[str, int] = {}
        """Files that are answered 503 so many times."""
        self.status = 200

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/files/{name}"


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name there)
        pass

    def do_GET(self) -> None:
        hub, name = cast("PhysioNet", self.server), self.path.rpartition("/")[2]
        hub.asked.append(name)
        if self.headers.get("Authorization") != BASIC:
            return self._refuse(401)
        if hub.status != 200:
            return self._refuse(hub.status)
        if hub.busy.get(name):
            hub.busy[name] -= 1
            return self._refuse(503)
        if name not in hub.files:
            return self._refuse(404)
        content, start = hub.files[name], 0
        if asked := self.headers.get("Range"):
            hub.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start:]
        if name in hub.cut:
            hub.cut.remove(name)
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)
        self.close_connection = True
        return None

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server() -> Iterator[PhysioNet]:
    with PhysioNet() as running:
        for number in range(6):
            out = io.BytesIO()
            Image.effect_noise((64, 64), 50 + number).save(out, format="JPEG")
            running.files[f"{number}.jpg"] = out.getvalue()
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHYSIONET_USERNAME", "reader")
    monkeypatch.setenv("PHYSIONET_PASSWORD", SECRET)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(physionet, "_FIRST_WAIT_S", 0.001)


def xrays(folder: Path) -> XRays:
    manifest = load_manifest(folder) or Mirror(
        source="org/name", revision="a" * 40, files={}, rows={}, synthetic=False
    )
    return XRays(folder=folder, place="files", manifest=manifest)


async def test_every_image_arrives_and_is_in_the_manifest_for_its_owner_only(
    server: PhysioNet, tmp_path: Path
) -> None:
    addresses = [server.address(name) for name in server.files]

    await xrays(tmp_path).fetch(addresses)

    manifest = load_manifest(tmp_path)
    assert manifest is not None
    assert set(manifest.files) == {f"files/{name}" for name in server.files}
    for name, content in server.files.items():
        path = tmp_path / "files" / name
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_second_pull_asks_for_nothing_that_is_here(
    server: PhysioNet, tmp_path: Path
) -> None:
    addresses = [server.address(name) for name in server.files]
    await xrays(tmp_path).fetch(addresses[:4])
    server.asked.clear()

    await xrays(tmp_path).fetch(addresses)

    assert sorted(server.asked) == ["4.jpg", "5.jpg"]


async def test_a_cut_download_goes_on_with_a_range_and_a_busy_server_is_asked_again(
    server: PhysioNet, tmp_path: Path
) -> None:
    server.cut = {"1.jpg"}
    server.busy = {"2.jpg": 3}

    await xrays(tmp_path).fetch([server.address(name) for name in server.files])

    half = len(server.files["1.jpg"]) // 2
    assert server.ranges == [f"bytes={half}-"]
    assert (tmp_path / "files" / "1.jpg").read_bytes() == server.files["1.jpg"]
    assert server.asked.count("2.jpg") == 4


async def test_what_is_no_image_is_not_kept_and_the_others_are(
    server: PhysioNet, tmp_path: Path
) -> None:
    server.files["3.jpg"] = b"<html>log in, please</html>"

    with pytest.raises(DatasetError, match=r"images not fetched: 1 of 6: 3\.jpg: .* not an image"):
        await xrays(tmp_path).fetch([server.address(name) for name in server.files])

    manifest = load_manifest(tmp_path)
    assert manifest is not None
    assert set(manifest.files) == {f"files/{number}.jpg" for number in (0, 1, 2, 4, 5)}
    assert not (tmp_path / "files" / "3.jpg").exists()


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (401, "rejected the user name or password", "PHYSIONET_PASSWORD"),
        (403, "denied access to this account", "signed the data use agreement"),
        (302, "denied access to this account", "signed the data use agreement"),
    ],
)
async def test_a_refusal_is_explained_asked_for_once_and_keeps_what_is_here(
    server: PhysioNet, tmp_path: Path, status: int, message: str, hint: str
) -> None:
    addresses = [server.address(name) for name in server.files]
    await xrays(tmp_path).fetch(addresses[:2])
    server.asked.clear()
    server.status = status

    with pytest.raises(ConfigError, match=message) as error:
        await xrays(tmp_path).fetch(addresses)

    manifest = load_manifest(tmp_path)
    assert hint in error.value.hint
    assert len(server.asked) <= 4
    assert manifest is not None
    assert len(manifest.files) == 2


async def test_without_an_account_nothing_is_asked(
    server: PhysioNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PHYSIONET_PASSWORD")

    with pytest.raises(ConfigError, match="need a PhysioNet account, and none is set") as error:
        await xrays(tmp_path).fetch([server.address("0.jpg")])

    assert "machine physionet.org" in error.value.hint
    assert server.asked == []


async def test_the_account_may_come_from_netrc(
    server: PhysioNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PHYSIONET_USERNAME")
    path = tmp_path / "netrc"
    path.write_text(f'machine physionet.org login reader password "{SECRET}"\n')
    path.chmod(0o600)

    await xrays(tmp_path).fetch([server.address("0.jpg")])

    assert (tmp_path / "files" / "0.jpg").exists()


@pytest.mark.parametrize(
    "address",
    [
        "https://physionet.org.example.com/files/0.jpg",
        "http://physionet.org/files/0.jpg",
        "https://example.com/physionet.org/0.jpg",
        "https://physionet.org@example.com/0.jpg",
        "file:///etc/passwd",
        "0.jpg",
    ],
)
async def test_the_account_goes_to_nobody_else(tmp_path: Path, address: str) -> None:
    with pytest.raises(DatasetError, match=r"the account is sent to https://physionet\.org only"):
        await xrays(tmp_path).fetch([address])


async def test_the_password_is_in_no_log_no_error_and_no_file(
    server: PhysioNet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.status = 403
    images = xrays(tmp_path)

    with pytest.raises(ConfigError) as error:
        await images.fetch([server.address("0.jpg")])

    manifest = images.manifest.model_dump_json()
    told = json.dumps([caplog.text, str(error.value), error.value.hint, repr(images), manifest])
    assert SECRET not in told
    assert BASIC.removeprefix("Basic ") not in told


HUB = Path(__file__).parent / "fixtures" / "hub" / "sahalshajim" / "medix-eval-sets"
TABLE = "mimic_cxr/test-00000-of-00001.parquet"


class _Dataset(HubDataset):
    """The credentialed table, from a folder in place of the hub."""

    def files_of(self, config: str | None, options: Any) -> list[str]:
        return [TABLE]


@pytest.fixture
def table(server: PhysioNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a mirror's root; the hub has the table, whose addresses are those of the server."""
    served = tmp_path / "served"
    shutil.copytree(HUB / "mimic_cxr", served / "mimic_cxr")
    rows = datasets.Dataset.from_parquet(str(HUB / TABLE))
    names = [f"{number}.jpg" for number in range(6)]
    some = rows.select(range(6)).remove_columns("image")
    some = some.add_column("image", [server.address(name) for name in names])
    some.to_parquet(served / TABLE)
    (served / "README.md").write_text((HUB / "README.md").read_text())

    def dataset(name: str, *, revision: str | None) -> _Dataset:
        files = {
            file: HubFile(size=(served / file).stat().st_size, sha256=None, git_blob="0" * 40)
            for file in (TABLE, "README.md")
        }
        return _Dataset(name=name, commit="a" * 40, files=files)

    monkeypatch.setattr(_Dataset, "fetch", lambda _, *file: _copy(served, *file))
    monkeypatch.setattr(pull_module, "hub_dataset", dataset)
    return tmp_path / "mirror"


def _copy(served: Path, name: str, folder: Path) -> MirrorFile:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(served / name, folder / name)
    return MirrorFile.of(folder / name)


def test_report_generation_gets_its_images_and_summarisation_asks_for_none(
    server: PhysioNet, table: Path
) -> None:
    tasks = load_tasks([bundled("tasks")]).tasks

    pull([tasks["mimic_cxr_report_summarization"]], table)
    before = list(server.asked)
    (pulled,) = pull([tasks["mimic_cxr_report_generation"]], table)

    task = open_task(tasks["mimic_cxr_report_generation"], data_root=table)
    assert before == []
    assert sorted(server.asked) == sorted(server.files)
    assert pulled.num_fetched == 6
    assert task.missing_images() == []
    assert [task.stored_images(row) for row in task.rows] == [
        [content] for content in server.files.values()
    ]
    assert "files/" in task.fingerprint()
