"""A key is kept out of every file and every line, and nothing is sent to where nobody said."""

# ruff: noqa: ARG005 - an echo need not use all it is told

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from packed_files import contents
from scripted_servers import HUB, Run

from medix_eval.testing import serving

KEY = "sk-planted-4f9c27d1e8b34a6c"
IN_PATH = "key-5d0e81c7a92b4f36"
SECRETS = (KEY, IN_PATH)
VOTE = '{"score": 1}'
Echo = Callable[[str], dict[str, Any]]


def completion(text: str, **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "scripted",
        "choices": [{**choice, "finish_reason": "stop"}],
        "usage": usage,
        **changes,
    }


def with_message(**fields: Any) -> list[dict[str, Any]]:
    message = {"role": "assistant", "content": "B", **fields}
    return [{"index": 0, "message": message, "finish_reason": "stop"}]


def error(said: str) -> dict[str, Any]:
    return {
        "error": {"message": f"bad request of {said}", "type": said, "param": said, "code": said}
    }


# What is echoed, by whom: a status, a body, and headers.
ECHOES: dict[str, Callable[[str, bool], tuple[int, Any, dict[str, str]]]] = {
    "answer": lambda said, judge: (200, completion(VOTE if judge else f"{said} B"), {}),
    "thinking": lambda said, judge: (
        200, completion("", choices=with_message(content=VOTE if judge else "B",
                                                 reasoning_content=said)), {}),
    "refusal": lambda said, judge: (
        200, completion("", choices=with_message(content=None, refusal=said)), {}),
    "judge": lambda said, judge: (200, completion(f"{said} {VOTE}" if judge else "B"), {}),
    "judge-alone": lambda said, judge: (200, completion(said if judge else "B"), {}),
    "rejected": lambda said, judge: (400, error(said), {}),
    "refused-key": lambda said, judge: (401, error(said), {}),
    "broken": lambda said, judge: (200, f"{{half of {said}", {}),
    "page": lambda said, judge: (404, f"<html><title>{said}</title>{said}</html>", {}),
    "redirect": lambda said, judge: (302, "", {"Location": f"http://127.0.0.1:9/{said.split()[-1]}"}),
    "header": lambda said, judge: (
        200, completion(VOTE if judge else "B"), {"X-Request-Id": said, "Server": said}),
    "other-model": lambda said, judge: (200, completion("B", model=f"scripted {said}"), {}),
    "fields": lambda said, judge: (
        200, completion(VOTE if judge else "B", id=said, system_fingerprint=said), {}),
    "finish": lambda said, judge: (
        200, completion("", choices=[{**with_message()[0], "finish_reason": said}]), {}),
    "models": lambda said, judge: (200, completion(VOTE if judge else "B"), {}),
}  # fmt: skip


def command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            yield path.read_text(errors="replace")


@pytest.fixture
def echo(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[str]]]:
    """Serve one echo; yield the address, and the command lines seen while it was asked."""
    name, seen = request.param, list[str]()

    async def answer(asked: web.Request) -> web.Response:
        said = f"{asked.headers.get('Authorization', 'nothing')} {asked.path}"
        seen.extend(command_lines())
        is_judge = "response_format" in (await asked.text())
        status, body, headers = ECHOES[name](said, is_judge)
        text = body if isinstance(body, str) else json.dumps(body)
        kind = "text/html" if text.startswith("<") else "application/json"
        return web.Response(text=text, status=status, headers=headers, content_type=kind)

    async def models(asked: web.Request) -> web.Response:
        said = asked.headers.get("Authorization", "nothing")
        listed = ["scripted", *([f"m {said}", f"{asked.path}"] if name == "models" else [])]
        return web.json_response({"object": "list", "data": [{"id": one} for one in listed]})

    app = web.Application()
    app.router.add_get(f"/{IN_PATH}/v1/models", models)
    app.router.add_post(f"/{IN_PATH}/v1/chat/completions", answer)
    with serving(app) as port:
        yield f"http://127.0.0.1:{port}/{IN_PATH}/v1", seen


def leaks(folder: Path, said: Sequence[str]) -> list[str]:
    """Return every place that holds a secret."""
    texts = [(f"output {number}", text.encode()) for number, text in enumerate(said)]
    for path in folder.rglob("*"):
        if path.is_file():
            texts += contents(str(path.relative_to(folder)), path.read_bytes())
    return [
        f"{name}: …{text[max(0, at - 60) : at + 30]!r}…"
        for name, text in texts
        for secret in SECRETS
        for at in [text.find(secret.encode())]
        if at >= 0
    ]


def asked(url: str, out: Path) -> list[str]:
    return [
        *("--model", "openai:scripted", "--base-url", url, "--limit", "2", "--tasks", "medqa"),
        *("--judge", "openai:scripted", "--judge-base-url", url, "--data-root", str(HUB)),
        *("--patience", "1", "--judge-patience", "1", "--out", str(out)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("echo", ECHOES, indirect=True)
def test_no_echo_of_a_server_brings_a_key_into_a_file_or_a_line(
    run: Run, echo: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    out = tmp_path / "out"
    codes, said = [], list[str]()
    commands: list[Sequence[str | Path]] = [asked(echo[0], out / "results")]
    code, *told = run(*commands[0])
    codes.append(code)
    said += told
    for folder in {path.parent for path in out.glob("results/*/*/run.json")}:
        for command in (
            asked(echo[0], out / "results"),
            ("judge", folder, "--judge", "openai:scripted", "--judge-base-url", echo[0]),
            ("score", folder),
            ("report", folder, "--data-root", HUB),
            ("export", folder, "--format", "csv", "--out", out / "scores.csv"),
            ("leaderboard", folder, "--allow-synthetic", "--out", out / "site"),
            ("submit", folder, "--allow-synthetic", "--out", out / "zips"),
        ):
            code, *told = run(*command)
            codes.append(code)
            said += told

    assert 70 not in codes
    assert leaks(out, said) == []


@pytest.mark.slow
@pytest.mark.parametrize("echo", ["answer"], indirect=True)
def test_no_command_line_holds_a_key(echo: tuple[str, list[str]], tmp_path: Path) -> None:
    url, seen = echo
    command = [sys.executable, "-m", "medix_eval", *asked(url, tmp_path / "out")]
    ended = subprocess.run(
        command, env={**os.environ, "OPENAI_API_KEY": KEY}, capture_output=True, check=False
    )

    assert ended.returncode in {0, 1}, ended.stderr
    assert any("medix_eval" in line for line in seen)
    assert not [line for line in seen if KEY in line]


def test_the_scan_for_a_key_looks_into_zips(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("run/verdicts.jsonl", f'{{"reply": "{KEY}"}}')

    assert len(leaks(tmp_path, [f"line with {IN_PATH}"])) == 2


# Where it goes

WATCH = """
import os, sys

def watch(event, given):
    if event == "socket.connect":
        address = given[1]
        host = address if isinstance(address, (str, bytes)) else address[0]
    elif event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}:
        host = given[0] if event != "socket.sendto" else given[1]
    else:
        return
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"{event} {host}\\n")

sys.addaudithook(watch)
"""
LOCAL = re.compile(r"socket\.\w+ (127\.|::1|localhost|None$|/|b?'?\\x00)")
LOADED = {"src", "srcset", "poster", "data", "background", "action", "formaction", "xlink:href"}


@pytest.mark.slow
def test_the_demo_asks_no_host(tmp_path: Path, repository: Path) -> None:
    """Not even with the hub allowed: what ships with the package needs nothing else."""
    (site := tmp_path / "site-packages").mkdir()
    (site / "sitecustomize.py").write_text(WATCH)
    watched, out = tmp_path / "watched", tmp_path / "out"
    paths = [str(site), str(repository), os.environ.get("PYTHONPATH", "")]
    env = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")}
    env |= {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "WATCHED": str(watched)}

    def medix(*argv: str | Path) -> None:
        command = [sys.executable, "-m", "medix_eval", *map(str, argv)]
        subprocess.run(command, env=env, check=True, capture_output=True)

    probe = "import socket; socket.getaddrinfo('127.0.0.1', 80)"
    subprocess.run([sys.executable, "-c", probe], env=env, check=True)
    medix(*("--model", "phantom", "--tasks", "phantom", "--limit", "2"),
          *("--protocol", "rules", "--out", out / "results"))  # fmt: skip
    (folder,) = {path.parent for path in out.glob("results/*/*/run.json")}
    medix("report", folder)
    medix("leaderboard", folder, "--out", out / "site")
    medix("submit", folder, "--out", out / "zips")
    tried = watched.read_text().splitlines()

    assert tried[0] == "socket.getaddrinfo 127.0.0.1"
    assert [line for line in tried if not LOCAL.match(line)] == []
    pages = list(out.rglob("*.html"))
    assert len(pages) > 2
    assert [one for page in pages for one in fetched(page)] == []
    scripts = [*out.rglob("*.js"), *out.rglob("*.css")]
    assert [path for path in scripts if re.search(r"(https?:)?//[\w-]+\.", code_of(path))] == []


def code_of(path: Path) -> str:
    """Return a script without its comments: a link there is for people."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/|^\s*//.*$", "", text, flags=re.DOTALL | re.MULTILINE)


class Fetching(HTMLParser):
    """Collects what a browser loads by itself; links that a person clicks are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag if tag in {"script", "style"} else ""
        for name, value in attrs:
            loads = name in LOADED or (name == "href" and tag in {"link", "use", "image", "base"})
            if (loads and re.search(r"(?i)(https?:)?//", value or "")) or (
                name == "style" and "//" in (value or "")
            ):
                self.found.append(f"{tag} {name}={value}")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "style" and re.search(r"(?i)@import|url\(\s*['\"]?(https?:)?//", data):
            self.found.append(f"style {data[:80]}")
        if self.inside == "script" and re.search(
            r"(?i)(fetch|open|import|XMLHttpRequest|WebSocket|EventSource|sendBeacon)\W{1,6}"
            r"(https?:|wss?:)?//", data,
        ):  # fmt: skip
            self.found.append(f"script {data[:80]}")


def fetched(page: Path) -> list[str]:
    parser = Fetching()
    parser.feed(page.read_text(encoding="utf-8"))
    return [f"{page.name}: {one}" for one in parser.found]


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/a.css">',
        '<img src="http://example.org/a.png">',
        '<style>@import "https://example.org/a.css";</style>',
        "<style>p { background: url(//example.org/a.png) }</style>",
        '<p style="background: url(//example.org/a.png)">',
        '<script>fetch("https://example.org")</script>',
    ],
)
def test_the_scan_of_pages_sees_what_a_browser_would_load(tmp_path: Path, page: str) -> None:
    (tmp_path / "page.html").write_text(f'<a href="https://example.org">a link</a>{page}')

    assert len(fetched(tmp_path / "page.html")) == 1
