"""Runs on data under a use agreement: what may leave the machine, and what may be written where."""

from __future__ import annotations

import base64
import json
import logging
import re
import socket
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from medix_eval.cli.app import main
from medix_eval.testing import Reply, ScriptedServer, prompt_text

TESTS = Path(__file__).parent
LEXICON = yaml.safe_load((TESTS / "fixtures" / "lexicon.yaml").read_text(encoding="utf-8"))
TEXTS = [told[part] for told in LEXICON["mimic_cxr"] for part in ("report", "summary")]
# Every sentence counts, not only a report as a whole; short ones stand in our own files too.
SECRETS = [
    sentence.encode()
    for text in TEXTS
    for sentence in re.split(r"(?<=[.:;]) ", text)
    if len(sentence) > 20
]
FOREIGN = "clinic.example"
REASON = "covered by agreement 12"
Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def _foreign_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a name a foreign address for whoever asks where it is, and ours to who connects."""
    resolve = socket.getaddrinfo

    def patched(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host != FOREIGN:
            return resolve(host, port, *more, **named)
        return resolve("127.0.0.1" if port else "192.0.2.7", port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", patched)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Answer as candidate with the restricted text itself, as judge with a quote and a grade."""

    def answer(body: dict[str, Any]) -> str:
        text = prompt_text(body)
        if "Reference" in text or "score" in text:
            return f'It says: {TEXTS[0]} {TEXTS[1]}\n{{"score": 4}}'
        return f"<answer>{text} {TEXTS[0]}</answer>"

    with ScriptedServer(answer) as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Run:
    """Run on both tasks; return the exit code and all that was printed and logged."""
    caplog.set_level(logging.DEBUG)

    def call(*argv: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            main(
                [
                    *("--tasks", "mimic_cxr", "--data-root", str(TESTS / "fixtures" / "hub")),
                    *("--out", str(tmp_path / "out"), "--verbose", *argv),
                ]
            )
        printed = capfd.readouterr()
        code = stopped.value.code
        return (code if isinstance(code, int) else 0), printed.out + printed.err + caplog.text

    return call


@pytest.fixture
def recorder() -> Iterator[tuple[int, list[str]]]:
    """Listen on loopback and take note of every connection, whatever it wants to say."""
    seen: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        yield listening.getsockname()[1], seen
        with suppress(TimeoutError):
            while True:
                listening.accept()
                seen.append("a connection")
    assert seen == []


def foreign(port: int) -> str:
    return f"http://{FOREIGN}:{port}/v1"


def found_in(content: bytes) -> list[bytes]:
    """Return the restricted sentences in a file, packed parts of pages included."""
    parts = [content]
    for packed in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", content):
        with suppress(ValueError, zlib.error):
            parts.append(zlib.decompress(base64.b64decode(packed), wbits=47))
        with suppress(ValueError, zlib.error):
            parts.append(zlib.decompress(base64.b64decode(packed), wbits=-15))
    escaped = [json.dumps(secret.decode()).encode()[1:-1] for secret in SECRETS]
    return [one for one in {*SECRETS, *escaped} for part in parts if one in part]


def leaks(folder: Path) -> dict[str, list[bytes]]:
    """Return what of the restricted text stands in which files."""
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = {path: found_in(content) for path, content in files.items()}
    return {path.name: texts for path, texts in found.items() if texts}


@pytest.mark.parametrize("role", ["candidate", "judge"])
def test_nothing_is_sent_to_a_foreign_host(
    run: Run, recorder: tuple[int, list[str]], tmp_path: Path, role: str
) -> None:
    port, _ = recorder
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"task": "x", "sample_id": "none", "completion": "A"}\n')
    roles = {
        "candidate": ("--model", "openai:m", "--base-url", foreign(port), "--protocol", "rules"),
        "judge": (
            *("--model", f"replay:{answers}"),
            *("--judge", "openai:m", "--judge-base-url", foreign(port)),
        ),
    }

    code, printed = run(*roles[role])

    assert code == 2
    assert f"restricted data may not be sent to {FOREIGN}" in printed
    assert "--allow-egress" in printed
    assert not (tmp_path / "out").exists()


def test_a_dry_run_is_refused_like_the_run_until_there_is_a_reason(run: Run) -> None:
    argv = ("--model", "openai:m", "--base-url", foreign(1), "--protocol", "rules", "--dry-run")

    refused, said = run(*argv)
    code, shown = run(*argv, "--allow-egress", REASON)

    assert refused == 2
    assert f"restricted data may not be sent to {FOREIGN}" in said
    assert code == 0
    assert f"hosts contacted: {FOREIGN}" in shown


def test_a_stated_reason_is_recorded_and_only_the_owner_reads_what_came_of_it(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    port = int(server.url.split(":")[2].split("/")[0])
    models = ("--model", "openai:scripted", "--base-url", foreign(port))
    judge = ("--judge", "openai:scripted", "--judge-base-url", foreign(port))

    code, printed = run(*models, *judge, "--allow-egress", REASON)

    (manifest,) = (tmp_path / "out").glob("*/*/run.json")
    (page,) = (tmp_path / "out").glob("*/*/judged/*/report.html")
    completions, *_ = (tmp_path / "out").rglob("completions.jsonl")
    verdicts, *_ = (tmp_path / "out").rglob("verdicts.jsonl")
    assert code == 0, printed
    assert len(server.requests) >= 16 * 3
    assert json.loads(manifest.read_text())["limits"]["egress_reason"] == REASON
    assert REASON in page.read_text()
    for path in (completions, verdicts):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(lines) == 16
        assert all(line["restricted"] for line in lines)
    assert set(leaks(tmp_path / "out")) == {"completions.jsonl", "verdicts.jsonl"}
    assert found_in(printed.encode()) == []


def test_a_server_that_quotes_the_prompt_in_its_error_puts_it_in_no_log(
    run: Run, tmp_path: Path
) -> None:
    def quote(body: dict[str, Any]) -> Reply:
        return Reply(text=f"cannot do: {prompt_text(body)}", status=500)

    with ScriptedServer(quote) as server:
        code, printed = run(
            *("--model", "openai:scripted", "--base-url", server.url, "--protocol", "rules"),
            *("--tasks", "mimic_cxr_report_summarization", "--limit", "1"),
        )

    assert code == 1
    assert "try 1 failed (RequestFailed)" in printed
    assert found_in(printed.encode()) == []
    assert set(leaks(tmp_path / "out")) <= {"completions.jsonl", "verdicts.jsonl"}


def test_the_site_of_such_a_run_holds_none_of_the_text(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    run(
        *("--model", "openai:scripted", "--base-url", server.url),
        *("--judge", "openai:scripted", "--judge-base-url", server.url),
    )

    with pytest.raises(SystemExit) as stopped:
        main(
            [
                *("leaderboard", str(tmp_path / "out"), "--out", str(tmp_path / "site")),
                "--allow-synthetic",
            ]
        )

    assert stopped.value.code == 0
    assert any((tmp_path / "site").rglob("*.html"))
    assert leaks(tmp_path / "site") == {}


def test_the_search_for_restricted_text_finds_it_where_it_is_packed() -> None:
    page = base64.b64encode(zlib.compress(SECRETS[0] + b" " * 99))

    assert found_in(b"<script>" + page + b"</script>") == [SECRETS[0]]
    assert found_in(b"nothing at all") == []
