"""`data pull` with the real hub clients against a local server that speaks the hub's wire."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp import web

from medix_eval.testing import serving

HUB = Path(__file__).parent / "fixtures" / "hub"
Cli = Callable[..., subprocess.CompletedProcess[str]]


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serve a folder laid out as `ORG/NAME`, every dataset at one commit."""

    def __init__(self, root: Path, *, commit: str = COMMIT) -> None:
        self.root = root
        self.commit = commit
        self.ranges: list[str] = []
        """The `Range` headers of all downloads that had one."""
        self.served: list[str] = []
        """The files that were sent, in order."""
        self.cut_after: int | None = None
        """Close the next download's connection after so many bytes."""
        self.damaged: set[str] = set()
        """Files that are sent with one byte changed."""
        self.status: int = 200
        app = web.Application()
        name = "/api/datasets/{org}/{name}"
        app.router.add_get(name, self._info)
        app.router.add_get(name + "/revision/{rev}", self._info)
        app.router.add_get(name + "/tree/{rev}", self._tree)
        app.router.add_get(name + "/tree/{rev}/{path:.*}", self._tree)
        app.router.add_post(name + "/paths-info/{rev}", self._paths)
        app.router.add_get("/datasets/{org}/{name}/resolve/{rev}/{path:.*}", self._file)
        self._serving = serving(app)
        self._port = 0

    @property
    def url(self) -> str:
        """What goes into `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._port = self._serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._serving.__exit__(None, None, None)

    def _folder(self, request: web.Request) -> Path:
        folder = self.root / request.match_info["org"] / request.match_info["name"]
        code = {401: "GatedRepo", 403: "GatedRepo"}.get(self.status, "RepoNotFound")
        if self.status != 200 or not folder.is_dir():
            status = self.status if self.status != 200 else 404
            error = {200: web.HTTPNotFound, 404: web.HTTPNotFound, 401: web.HTTPUnauthorized}.get(
                status, web.HTTPForbidden
            )
            raise error(headers={"X-Error-Code": code, "X-Error-Message": "no"})
        if request.match_info.get("rev", "main") not in {"main", self.commit}:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound"})
        return folder

    async def _info(self, request: web.Request) -> web.Response:
        folder = self._folder(request)
        siblings = [
            {"rfilename": entry.pop("path"), "blobId": entry.pop("oid"), **entry}
            for entry in _entries(folder)
            if entry.pop("type") == "file"
        ]
        name = f"{request.match_info['org']}/{request.match_info['name']}"
        return web.json_response(
            {"id": name, "sha": self.commit, "siblings": siblings, "private": False, "tags": []}
        )

    async def _tree(self, request: web.Request) -> web.Response:
        folder = self._folder(request)
        below = request.match_info.get("path", "")
        deep = request.query.get("recursive", "").lower() == "true"
        found = [
            entry
            for entry in _entries(folder)
            if not below or entry["path"].startswith(f"{below}/")
        ]
        if not deep:
            depth = below.count("/") + 2 if below else 1
            found = [entry for entry in found if entry["path"].count("/") + 1 == depth]
        if below and not (folder / below).exists():
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound"})
        return web.json_response(found)

    async def _paths(self, request: web.Request) -> web.Response:
        folder = self._folder(request)
        if request.content_type == "application/json":
            wanted = set((await request.json())["paths"])
        else:
            wanted = set((await request.post()).getall("paths", []))
        return web.json_response([one for one in _entries(folder) if one["path"] in wanted])

    async def _file(self, request: web.Request) -> web.StreamResponse:
        folder = self._folder(request)
        name = request.match_info["path"]
        path = folder / name
        if not path.is_file():
            raise web.HTTPNotFound(headers={"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        etag = _entry(folder, path).get("lfs", {}).get("oid") or _entry(folder, path)["oid"]
        if name in self.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        headers = {"X-Repo-Commit": self.commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        start, status = 0, 200
        if asked := request.headers.get("Range"):
            self.ranges.append(asked)
            start, status = int(asked.removeprefix("bytes=").split("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers["Content-Length"] = str(len(content) - start)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        self.served.append(name)
        if self.cut_after is not None and len(content) - start > self.cut_after:
            await response.write(content[start : start + self.cut_after])
            self.cut_after = None
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(content[start:])
        return response


def _entries(folder: Path) -> list[dict[str, Any]]:
    return [_entry(folder, path) for path in sorted(folder.rglob("*")) if path.name != ".cache"]


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": blob}
    if path.suffix in {".parquet", ".zip", ".jpg"}:  # what the hub keeps in its large file storage
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha, "sha256": sha, "size": len(content), "pointerSize": 120}
    return entry


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """Serve three datasets of the fixtures as the hub would: no manifest is among their files."""
    for name in ("BoKelvin/SLAKE", "cais/mmlu", "openlifescienceai/medmcqa"):
        ignored = shutil.ignore_patterns("medix-mirror.json")
        shutil.copytree(HUB / name, tmp_path / "served" / name, ignore=ignored)
    with HubServer(tmp_path / "served") as server:
        yield server


@pytest.fixture
def cli(hub: HubServer, tmp_path: Path) -> Cli:
    """Return a function that runs the command in a process of its own, with this hub."""

    def call(
        *argv: str | Path, max_file_bytes: int | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        def limit() -> None:
            if max_file_bytes:
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

        ours = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "home"),
        }
        return subprocess.run(
            [sys.executable, "-m", "medix_eval", *map(str, argv)],
            env={**os.environ, **ours, **env},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=limit,
        )

    return call


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "medix-mirror.json").read_text())
    return found


def test_a_pull_copies_what_the_tasks_need_and_an_evaluation_reads_it_offline(
    hub: HubServer, cli: Cli, tmp_path: Path
) -> None:
    # The task files expect the real numbers of rows, which these stand-ins do not have.
    hub_tasks = ("--tasks", "mmlu_anatomy,slake_vqa")
    done = cli("data", "pull", *hub_tasks, "--to", tmp_path / "mirror", "--json")
    assert done.returncode == 0, done.stderr
    mmlu, slake = (tmp_path / "mirror" / name for name in ("cais/mmlu", "BoKelvin/SLAKE"))
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"task": "x", "sample_id": "none", "completion": "A"}\n')
    ran = cli(
        *("--model", f"replay:{answers}", "--protocol", "rules", *hub_tasks, "--json"),
        *("--data-root", tmp_path / "mirror", "--out", tmp_path / "out"),
        "--accept-data-change",
        HF_HUB_OFFLINE="1",
        HF_ENDPOINT="http://127.0.0.1:9",
    )

    original = json.loads((HUB / "cais/mmlu/medix-mirror.json").read_text())
    copied = manifest(mmlu)
    assert [one["revision"] for one in json.loads(done.stdout)] == [COMMIT, COMMIT]
    assert sorted(copied["files"]) == [
        "README.md",
        *(f"anatomy/{split}-00000-of-00001.parquet" for split in ("dev", "test", "validation")),
        "as-on-hub/README.md",
    ]
    card = copied["files"].pop("README.md")
    assert copied["files"].pop("as-on-hub/README.md") == original["files"]["README.md"] != card
    assert copied["files"].items() <= original["files"].items()
    assert copied["rows"] == {"anatomy/test": 8, "anatomy/validation": 1, "anatomy/dev": 1}
    assert (copied["revision"], copied["synthetic"]) == (COMMIT, False)
    assert "imgs.zip" in manifest(slake)["files"]
    assert ran.returncode == 1, ran.stderr
    scores = json.loads(ran.stdout)["tasks"]
    assert {name: task["n"] for name, task in scores.items()} == {
        "mmlu_anatomy": 8,
        "slake_vqa": 12,
    }


def test_a_pull_that_was_cut_goes_on_where_it_was_and_fetches_nothing_twice(
    hub: HubServer, cli: Cli, tmp_path: Path
) -> None:
    # More than the client writes to the disk at once, so that a cut leaves a part behind.
    with zipfile.ZipFile(hub.root / "BoKelvin/SLAKE/imgs.zip", "a") as archive:
        archive.writestr("imgs/large", random.Random(0).randbytes(24_000_000))  # noqa: S311
    argv = ("data", "pull", "--tasks", "slake_vqa", "--to", tmp_path / "mirror")
    folder = tmp_path / "mirror" / "BoKelvin" / "SLAKE"

    first = cli(*argv, max_file_bytes=16_000_000)
    kept = manifest(folder)["files"]
    hub.served.clear()
    hub.cut_after = 3_000_000
    second = cli(*argv)
    served = list(hub.served)
    third = cli(*argv)

    assert first.returncode == 2
    assert "error: the disk is full: BoKelvin/SLAKE does not fit" in first.stderr
    assert "test.json" in kept
    assert second.returncode == 0, second.stderr
    assert hub.ranges != []
    assert set(served) == {"imgs.zip", "README.md"}
    assert third.returncode == 0
    assert hub.served[len(served) :] == []
    assert ", 0 of them new" in third.stdout


def test_a_file_that_arrives_damaged_is_not_kept(hub: HubServer, cli: Cli, tmp_path: Path) -> None:
    hub.damaged.add("imgs.zip")

    done = cli("data", "pull", "--tasks", "slake_vqa", "--to", tmp_path / "mirror")

    folder = tmp_path / "mirror" / "BoKelvin" / "SLAKE"
    assert done.returncode == 3
    assert (
        "error: imgs.zip of BoKelvin/SLAKE: the download is not what the hub lists" in done.stderr
    )
    assert not (folder / "imgs.zip").exists()
    assert "imgs.zip" not in manifest(folder)["files"]
    assert "test.json" in manifest(folder)["files"]


@pytest.mark.parametrize(
    ("refused", "message", "hint"),
    [
        ((403, "medmcqa"), "openlifescienceai/medmcqa is gated: no access", "HF_TOKEN"),
        ((200, "rad_vqa"), "the hub has no dataset flaviagiammarino/vqa-rad", "moved"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_a_cure(
    hub: HubServer, cli: Cli, tmp_path: Path, *, refused: tuple[int, str], message: str, hint: str
) -> None:
    hub.status, task = refused

    done = cli("data", "pull", "--tasks", task, "--to", tmp_path / "mirror")

    lines = done.stderr.strip().splitlines()
    assert done.returncode == 3
    assert message in lines[-2]
    assert hint in lines[-1]


def test_a_hub_out_of_reach_is_one_line_with_a_cure(cli: Cli, tmp_path: Path) -> None:
    argv = ("data", "pull", "--tasks", "medqa", "--to", tmp_path)

    done = cli(*argv, HF_HUB_OFFLINE="1")

    assert done.returncode == 3
    assert done.stderr.startswith("error: cannot ")
    assert "hint: the hub may be unreachable" in done.stderr


def test_a_mirror_never_mixes_two_commits(hub: HubServer, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "mirror" / "cais" / "mmlu"
    folder.mkdir(parents=True)
    older = {"source": "cais/mmlu", "revision": "f" * 40, "files": {}, "rows": {}}
    (folder / "medix-mirror.json").write_text(json.dumps(older | {"synthetic": False}))

    done = cli("data", "pull", "--tasks", "mmlu_anatomy", "--to", tmp_path / "mirror")

    assert done.returncode == 3
    assert "error: cais/mmlu: " in done.stderr
    assert hub.served == []


def test_a_run_on_the_hub_tells_the_commit_and_the_hashes_of_the_files_it_scored(
    cli: Cli, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"task": "x", "sample_id": "none", "completion": "A"}\n')

    done = cli(
        *("--model", f"replay:{answers}", "--protocol", "rules", "--accept-data-change"),
        *("--tasks", "mmlu_anatomy,slake_vqa", "--out", tmp_path / "out"),
    )

    assert done.returncode == 1, done.stderr
    (path,) = tmp_path.glob("out/*/*/run.json")
    tasks = json.loads(path.read_text())["tasks"]
    for name, repository in (("mmlu_anatomy", "cais/mmlu"), ("slake_vqa", "BoKelvin/SLAKE")):
        original = json.loads((HUB / repository / "medix-mirror.json").read_text())["files"]
        source = tasks[name]["source"]
        assert source["revision"] == COMMIT
        assert source["files"] == {file: original[file]["sha256"] for file in source["files"]}
    assert list(tasks["mmlu_anatomy"]["source"]["files"]) == ["anatomy/test-00000-of-00001.parquet"]
    assert sorted(tasks["slake_vqa"]["source"]["files"]) == ["imgs.zip", "test.json"]
