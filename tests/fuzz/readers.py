"""Every reader of outside text, archives and pictures gets inputs that nobody would send.

`make fuzz` gives each `FUZZ_S` seconds. A reader returns, or raises the error that it documents,
and within seconds; what it returns is in its range. A failure is told with how to repeat it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import math
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import FrameType
from typing import Any

import aiohttp
import hypothesis
import pandas as pd
import yaml
from hypothesis import HealthCheck, Verbosity, given, settings
from hypothesis import strategies as st
from PIL import Image

import medix_eval
from medix_eval.data.lm_task import open_task
from medix_eval.data.new import new_benchmark
from medix_eval.data.samples import read_samples
from medix_eval.data.tasks import load_tasks
from medix_eval.errors import NO_PATH, MedixError, ReplyUnusable
from medix_eval.exchange.checking import Doubts, check_submission, unpack
from medix_eval.exchange.importing import import_results
from medix_eval.judging import replies
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.error_tags import TAGS, error_tags
from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.protocol import load_protocol
from medix_eval.models.chat import Prompt, Sampling
from medix_eval.models.openai_server import Connected, OpenAIServer
from medix_eval.models.replay import ReplayFile
from medix_eval.models.requests import accepted, refusal_kind
from medix_eval.records import CompletionRecord, Kind, Vote
from medix_eval.results.gate import load_policy
from medix_eval.results.labels import options_of, read_labels, with_quote, without_quote
from medix_eval.results.prices import read_prices
from medix_eval.results.store import read_run
from medix_eval.rules.answers import extract_answer, letter_of, thinking_of
from medix_eval.site.boards import load_facts, load_rules
from medix_eval.storage.bundled import bundled
from medix_eval.storage.images import as_sent, damage
from medix_eval.storage.mirror import read_mirror
from medix_train.recipe import load_recipe, load_reward_settings

sys.path.insert(0, str(Path(__file__).parent))
from inputs import bent, files, odd, texts

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUN = FIXTURES / "v0_1" / "runs" / "medix" / "openai-scripted" / "147e8bc8"
CATALOGUE = load_tasks([bundled("tasks")])
PER_INPUT_S = 20.0
OPTIONS = ("liver", "the lung", "kidney", "5 mg")


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader: its inputs, and what holds of each."""

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any, Path], None]
    """Gets an input and an empty folder."""


def _record(text: str, **fields: Any) -> CompletionRecord:
    given: dict[str, Any] = {"kind": Kind.OPEN, "reference": "5 mg", **fields}
    return CompletionRecord(
        task="t@1", sample_id="1", row=0, prompt="Which?", completion=text,
        finish_reason=given.pop("reason", "stop"), **given,
    )  # fmt: skip


RULES = load_protocol("rules")
RECORDS: list[dict[str, Any]] = [
    {},
    {"kind": Kind.CLOSED, "reference": "yes"},
    {"kind": Kind.MULTIPLE_CHOICE, "reference": "liver", "options": OPTIONS},
    {"kind": Kind.MULTIPLE_CHOICE, "reference": "liver", "options": OPTIONS, "reason": "length"},
    {"kind": Kind.MULTIPLE_CHOICE, "reference": "liver", "options": OPTIONS, "parser": "letter"},
    {"kind": Kind.REPORT, "reference": "x", "facts": {"count": "2", "side": "left", "finding": ""}},
    {"reason": "length"},
]


def _completion(text: str, _: Path) -> None:
    text = text.encode(errors="replace").decode()
    assert extract_answer(text) in text
    assert text.startswith(thinking_of(text))
    assert letter_of(text, OPTIONS) in {None, "A", "B", "C", "D"}
    for fields in RECORDS:
        verdict = asyncio.run(verdict_of(_record(text, **fields), protocol=RULES, grader=None))
        assert (verdict.score is not None) == verdict.outcome.is_scored
        assert verdict.score is None or 0 <= verdict.score <= 1
        assert TAGS.issuperset(verdict.error_tags)
    assert TAGS.issuperset(error_tags(text, kind=Kind.OPEN, reference="5 mg"))


def _judge_reply(text: str, _: Path) -> None:
    assert TAGS.issuperset(replies.labels_of(text))
    json.dumps(replies.details_of(text), allow_nan=False).encode()
    for scale in ((0, 1), (0, 5)):
        with suppress(ReplyUnusable):
            assert replies.read_points(text, scale=scale, answer=text[:50]) in {
                None,
                *range(scale[1] + 1),
            }
    with suppress(ReplyUnusable):
        assert replies.read_label(text, labels={"YES": 1, "NO": 0}) in {0, 1}
    for is_report in (False, True):
        with suppress(ReplyUnusable):
            points = replies.read_published(text, is_report=is_report)
            assert math.isfinite(points)
            assert is_report or points in {0, 1}


def _vendor_words(text: str, _: Path) -> None:
    assert isinstance(refusal_kind(text), str)


def _labels(data: bytes, folder: Path) -> None:
    (folder / "labels.csv").write_bytes(data)
    found = read_labels(folder / "labels.csv")
    assert all(0 <= label <= 1 for label in found.by_sample.values())
    for row in found.rows.values():
        with suppress(MedixError):
            options_of(row.columns.get("options", ""), sample_id=row.sample_id)


def _quoted(text: str, _: Path) -> None:
    assert without_quote(with_quote(text)) == text


def _replay(data: bytes, folder: Path) -> None:
    (folder / "answers.jsonl").write_bytes(data)

    async def read() -> None:
        async with ReplayFile(path=folder / "answers.jsonl").open(folder):
            pass

    asyncio.run(read())


def _run(change: tuple[str, bytes], folder: Path) -> None:
    name, data = change
    shutil.copytree(RUN, folder / "m" / "run")
    (file,) = [one for one in (folder / "m" / "run").rglob(name) if "selections" not in one.parts]
    file.write_bytes(data)
    for done in (
        partial(read_run, folder / "m" / "run"),
        partial(medix_eval.score, folder / "m" / "run"),
    ):
        with suppress(MedixError):
            scores = done().scores
            assert all(one.score is None or 0 <= one.score <= 1 for one in scores.tasks.values())


def _run_files() -> st.SearchStrategy[tuple[str, bytes]]:
    found = []
    for name in ("run.json", "completions.jsonl", "judging.json", "verdicts.jsonl", "scores.json"):
        (file,) = RUN.rglob(name)
        data = file.read_bytes()
        if name.endswith(".jsonl"):
            lines = [json.loads(line) for line in data.splitlines()]
            some = st.lists(odd(lines), max_size=4).map(
                lambda some: b"".join(json.dumps(one).encode() + b"\n" for one in some)
            )
            some |= bent([data])
        else:
            some = odd([json.loads(data)]).map(lambda one: json.dumps(one).encode()) | bent([data])
        found.append(st.tuples(st.just(name), some))
    return st.one_of(found)


@cache
def _zips() -> tuple[bytes, ...]:
    found = []
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", how) as archive:
            for file in ("submission.json", "run.json", "a/b.txt", "a/"):
                archive.writestr(f"s/{file}", "" if file.endswith("/") else '{"a": 1}' * 20)
        found.append(content.getvalue())
    with tempfile.TemporaryDirectory() as scratch:
        found.append(_submission(Path(scratch)).read_bytes())
    return tuple(found)


def _submission(out: Path) -> Path:
    from medix_eval.exchange.submission import write_submission  # noqa: PLC0415

    shutil.copytree(RUN, out / "m" / "run")
    medix_eval.score(out / "m" / "run")
    return write_submission(
        read_run(out / "m" / "run"), out, official=False, allow_synthetic=True, key=None
    )


def _archive(data: bytes, folder: Path) -> None:
    (folder / "given.zip").write_bytes(data)
    with suppress(MedixError):
        unpack(folder / "given.zip", folder / "in")
        assert not any(one.is_symlink() for one in (folder / "in").rglob("*"))
    assert {one.name for one in folder.iterdir()} <= {"given.zip", "in"}
    check_submission(folder / "given.zip", CATALOGUE, Doubts(allow_synthetic=True))


def _imported(given: dict[str, bytes], folder: Path) -> None:
    (folder / "given").mkdir()
    for name, data in given.items():
        (folder / "given" / name).write_bytes(data)
    found = import_results(folder / "given", CATALOGUE, out=folder / "out", model=None)
    assert all(one.score is None or one.score >= 0 for one in found.scores.tasks.values())


def _foreign() -> st.SearchStrategy[dict[str, bytes]]:
    answers = [{"id": "medqa_0", "question": "Q", "answer": "A", "response": "B"}]
    judged = [{**answers[0], "score": 1, "verdict": '{"score": 1}'}]
    kit = [{"prompt": "Q", "response": "A", "answer": "A", "correct": True, "choices": ["a", "b"]}]
    results = {"results": {"medqa": {"acc,none": 0.5}}, "n-samples": {"medqa": {"effective": 1}}}
    samples = [
        {"doc_id": 0, "target": "A", "filtered_resps": ["A"], "acc": 1.0, "arguments": [["Q"]]}
    ]

    def lines(rows: list[Any]) -> st.SearchStrategy[bytes]:
        return files(values=rows).map(lambda data: data + b"\n")

    return st.one_of(
        st.fixed_dictionaries({"m.jsonl": lines(answers), "m_eval.jsonl": lines(judged)}),
        st.fixed_dictionaries(
            {
                "results.json": files(values=[kit]),
                "metrics.json": files(values=[{"medqa": {"acc": 1}}]),
            }
        ),
        st.fixed_dictionaries(
            {"results_1.json": files(values=[results]), "samples_medqa_1.jsonl": lines(samples)}
        ),
    )


TASK = {
    "task": "mine", "dataset_path": "org/name", "test_split": "test", "doc_to_text": "{{question}}",
    "doc_to_target": "answer", "output_type": "generate_until",
    "metadata": {"version": 1, "medix": {"kind": "open", "modality": "text", "data_class": "public",
    "licence": "mit", "num_samples": None}},
}  # fmt: skip


def _task(data: bytes, folder: Path) -> None:
    (folder / "mine.yaml").write_bytes(data)
    load_tasks([folder])


def _protocol(data: bytes, folder: Path) -> None:
    shutil.copytree(bundled("judges"), folder / "judges")
    (folder / "judges" / "mine.yaml").write_bytes(data)
    found = load_protocol(str(folder / "judges" / "mine.yaml"))
    assert len(found.stamp()["digest"]) == 64


def _yaml(read: Callable[[Path], object]) -> Callable[[bytes, Path], None]:
    def check(data: bytes, folder: Path) -> None:
        (folder / "given.yaml").write_bytes(data)
        read(folder / "given.yaml")

    return check


def _yamls(*paths: Path) -> st.SearchStrategy[bytes]:
    found = [path.read_bytes() for path in paths]
    return files(*found, values=[yaml.safe_load(one) for one in found])


def _table(given: tuple[str, bytes], folder: Path) -> None:
    name, data = given
    (folder / "in").mkdir()
    (folder / "in" / name).write_bytes(data)
    found = new_benchmark(
        folder / "in", name="mine", to=folder / "out", licence="mit", data_class="public"
    )
    for file in load_tasks([found.task_folder]).tasks.values():
        task = open_task(file, data_root=found.data_root)
        read = [
            *read_samples(task, range(len(task.rows)), key=file.key, done=frozenset(), taken=set())
        ]
        assert len(read) == len(task.rows)


def _tables() -> st.SearchStrategy[tuple[str, bytes]]:
    cell = texts(valid=True).map(lambda text: text[:60]) | st.sampled_from(
        ["A", "yes", "a.png", "5 mg", '["a", "b"]', "a|b"]
    )
    names = st.sampled_from(
        ["question", "answer", "options", "A", "B", "option_a", "id", "image", "kind", "x", ""]
    )
    rows = st.lists(st.dictionaries(names, cell, max_size=6), min_size=1, max_size=5)
    plain = b"question,answer,A,B\nWhich?,A,liver,lung\nIs it?,B,one,two\n"

    def packed(given: list[dict[str, str]], kind: str) -> tuple[str, bytes]:
        frame, out = pd.DataFrame(given), io.BytesIO()
        if kind == "csv":
            return "t.csv", frame.to_csv(index=False).encode()
        with suppress(Exception):
            frame.to_excel(out, index=False) if kind == "xlsx" else frame.to_parquet(out)
        return f"t.{kind}", out.getvalue()

    @cache
    def whole(kind: str) -> bytes:
        return packed([{"question": "Which?", "answer": "A", "A": "liver", "B": "lung"}], kind)[1]

    kinds = ("csv", "xlsx", "parquet")
    some = st.builds(packed, rows, st.sampled_from(kinds))
    some |= st.sampled_from(kinds).flatmap(
        lambda kind: st.tuples(st.just(f"t.{kind}"), bent([whole(kind)]))
    )
    return some | st.tuples(st.just("t.csv"), files(plain))


def _mirror(data: bytes, folder: Path) -> None:
    place = folder / "hub" / "org" / "name" / "data"
    place.mkdir(parents=True)
    (place / "test-00000-of-00001.parquet").write_bytes(data)
    (folder / "tasks").mkdir()
    (folder / "tasks" / "mine.yaml").write_text(
        "class: !function medix_eval.lm_task.MedixTask\n" + yaml.safe_dump(TASK)
    )
    file = load_tasks([folder / "tasks"]).tasks["mine"]
    task = open_task(file, data_root=folder / "hub")
    for _ in read_samples(task, range(len(task.rows)), key=file.key, done=frozenset(), taken=set()):
        pass


def _parquet() -> bytes:
    out = io.BytesIO()
    pd.DataFrame({"question": ["Which?"] * 3, "answer": ["a", "b", "c"]}).to_parquet(out)
    return out.getvalue()


def _mirror_manifest(data: bytes, folder: Path) -> None:
    (folder / "medix-mirror.json").write_bytes(data)
    read_mirror(folder)


def _picture(data: bytes, _: Path) -> None:
    if damage(data):
        return
    for encoding in ("stored", "jpeg75"):
        with Image.open(io.BytesIO(as_sent(data, encoding=encoding))) as shown:
            shown.load()


@cache
def _pictures() -> tuple[bytes, ...]:
    found = []
    for mode, kinds in {
        "RGB": "PNG JPEG GIF WEBP TIFF BMP",
        "L": "PNG JPEG TIFF",
        "P": "PNG GIF",
        "RGBA": "PNG WEBP TIFF",
        "I;16": "PNG TIFF",
        "CMYK": "JPEG TIFF",
        "F": "TIFF",
        "1": "PNG TIFF",
    }.items():
        for kind in kinds.split():
            out = io.BytesIO()
            picture = Image.effect_noise((24, 16), 80).convert("L")
            picture = (
                picture.convert(mode) if mode != "I;16" else picture.convert("I").convert("I;16")
            )
            picture.save(out, kind)
            found.append(out.getvalue())
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return (*found, out.getvalue())


def _kept_votes(data: bytes, folder: Path) -> None:
    path = folder / "verdicts.sqlite"
    path.write_bytes(data)
    with VerdictCache.at(path) as cache:
        for at in range(30):
            known = cache.find(f"{at:064}")
            assert known is None or isinstance(known["points"], float)
        cache.keep([Vote(judge="j", prompt="p", key="new", points=1.0)], restricted=False)


@cache
def _caches() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "verdicts.sqlite"
        with VerdictCache.at(path) as cache:
            votes = [
                Vote(
                    judge="j",
                    prompt="p",
                    key=f"{at:064}",
                    points=1.0,
                    reply="x" * 99,
                    labels=("same",),
                )
                for at in range(30)
            ]
            cache.keep(votes, restricted=False)
        with sqlite3.connect(path) as file:
            file.execute("PRAGMA journal_mode=DELETE")
        return (path.read_bytes(),)


MESSAGE: dict[str, Any] = {
    "role": "assistant",
    "content": "A",
    "refusal": None,
    "reasoning_content": "hm",
    "tool_calls": [],
}
REPLIES: list[Any] = [
    {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 1,
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    },
    {
        "choices": [
            {
                "message": {
                    "content": [
                        {"type": "text", "text": "A"},
                        {"type": "thinking", "thinking": [{"text": "x"}]},
                    ]
                },
                "finish_reason": ["length"],
                "error": {"code": 429},
            }
        ]
    },
    {
        "error": {
            "message": "This model's maximum context length is 4096 tokens",
            "type": "invalid_request_error",
            "code": "context_length_exceeded",
            "param": "messages",
        }
    },
    {"object": "error", "message": "bad", "code": 400},
    {"detail": [{"loc": ["body", "seed"], "msg": "no"}]},
]


def _wire() -> st.SearchStrategy[tuple[bytes, bytes]]:
    statuses = st.sampled_from(
        [200, 200, 200, 204, 301, 400, 401, 402, 404, 413, 422, 429, 500, 503, 529, 99, 700]
    )
    kinds = st.sampled_from(
        [
            "application/json",
            "text/html",
            "text/event-stream",
            "",
            "application/json; charset=utf-7",
            "\x00",
        ]
    )
    waits = st.sampled_from(
        [
            "",
            "Retry-After: 3\r\n",
            "Retry-After: 1e999\r\n",
            "Retry-After: nan\r\n",
            "Retry-After: Wed, 99 Xxx 2026\r\n",
            "Content-Encoding: gzip\r\n",
            "Content-Length: 99999\r\n",
            "Transfer-Encoding: chunked\r\n",
            "x" * 9000 + ": y\r\n",
        ]
    )
    head = st.builds(
        lambda *said: "HTTP/1.1 {} x\r\nContent-Type: {}\r\n{}\r\n".format(*said).encode(),
        statuses,
        kinds,
        waits,
    )
    return st.tuples(
        head | bent([b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"]),
        files(values=REPLIES),
    )


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _server(said: tuple[bytes, bytes], _: Path) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(one.split(b":")[1])
                    for one in head.lower().split(b"\r\n")
                    if one.startswith(b"content-length")
                ),
                0,
            )
            await reader.readexactly(length)
            writer.write(b"".join(said))
            await writer.drain()
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            model = OpenAIServer(model="m", base_url=f"http://127.0.0.1:{port}/v1")
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
                connected = Connected(server=model, session=session)
                found = accepted(
                    await connected.complete(
                        Prompt(text="Which?", schema={}), Sampling(max_tokens=9)
                    )
                )
                assert found.text is None or isinstance(found.text, str)
                assert found.finish_reason in {None, "stop", "length", "content_filter", "refusal"}

    _loop().run_until_complete(ask())


JUDGES = bundled("judges")
READERS: dict[str, Reader] = {
    "completion": Reader(texts(), _completion),
    "judge_reply": Reader(
        texts()
        | files(b'{"reason": "x", "relation": "same", "score": 1}').map(
            lambda data: data.decode(errors="replace")
        ),
        _judge_reply,
    ),
    "vendor_words": Reader(texts(), _vendor_words),
    "server": Reader(_wire(), _server),
    "labels": Reader(
        files(b"sample_id,label,annotator\na,yes,x\na,0.5,y\nb,?,x\n", b"sample_id;label\na;1,0\n"),
        _labels,
    ),
    "quotes": Reader(texts(), _quoted),
    "replay": Reader(
        files(
            values=[
                {"sample_id": "a", "task": "t", "completion": "A"},
                {"id": "medqa_0", "response": "A"},
            ]
        ),
        _replay,
    ),
    "run": Reader(_run_files(), _run),
    "archive": Reader(st.deferred(lambda: bent(_zips())), _archive),
    "imported": Reader(_foreign(), _imported),
    "task": Reader(
        files(
            b"class: !function medix_eval.lm_task.MedixTask\n",
            values=[TASK, {"group": "g", "task": ["mine"]}],
        ),
        _task,
    ),
    "protocol": Reader(_yamls(*sorted(JUDGES.glob("*.yaml"))), _protocol),
    "prices": Reader(
        files(
            values=[
                {"currency": "EUR", "prompt_tokens": 1, "completion_tokens": 2, "judge_call": 0.1}
            ]
        ),
        _yaml(read_prices),
    ),
    "gate": Reader(
        files(
            values=[
                {"floors": [{"task": "medqa", "at_least": 0.5}], "limits": {"request_failed": 0.01}}
            ]
        ),
        _yaml(load_policy),
    ),
    "board": Reader(
        files(values=[{"models": {"m": {"size": 8, "open": True}}}]),
        _yaml(lambda path: load_facts([path])),
    ),
    "board_rules": Reader(
        files(values=[{"complete": True, "scorecard": {"kappa": 0.5}}]), _yaml(load_rules)
    ),
    "recipe": Reader(
        _yamls(*sorted(bundled("recipes").glob("*.yaml"))[:3]),
        _yaml(lambda path: load_recipe(str(path))),
    ),
    "rewards": Reader(
        files(values=[{"edition": "medix", "weights": {}, "judge": {"model": "m"}}]),
        _yaml(load_reward_settings),
    ),
    "table": Reader(_tables(), _table),
    "mirror": Reader(bent([_parquet()]), _mirror),
    "mirror_manifest": Reader(
        files(
            values=[
                {
                    "source": "a/b",
                    "revision": None,
                    "files": {},
                    "rows": {"t": 1},
                    "synthetic": False,
                }
            ]
        ),
        _mirror_manifest,
    ),
    "picture": Reader(st.deferred(lambda: bent(_pictures())), _picture),
    "kept_votes": Reader(st.deferred(lambda: bent(_caches())), _kept_votes),
}


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(
    reader: Reader, *, seconds: float, seed: int, num: int = 100
) -> tuple[int, int, BaseException | None]:
    """Try inputs for this long; return how many, the seed of the last batch, and what failed."""
    end, tried, failed = time.monotonic() + seconds, 0, False

    def one(given: Any) -> None:
        nonlocal tried, failed
        if tried and not failed and time.monotonic() > end + PER_INPUT_S:
            return  # in the middle of a batch
        tried += 1
        with tempfile.TemporaryDirectory() as folder, _within(PER_INPUT_S), suppress(MedixError):
            try:
                reader.check(given, Path(folder))
            except MedixError:
                raise
            except Exception as error:
                if not (isinstance(error, OSError) and error.errno in NO_PATH):
                    failed = True  # a name that no file can have, a command tells of
                    raise

    while True:
        told = settings(
            max_examples=num, deadline=None, database=None, verbosity=Verbosity.quiet,
            suppress_health_check=_WHOLE, report_multiple_bugs=False,
        )  # fmt: skip
        try:
            hypothesis.seed(seed)(told(given(reader.inputs)(one)))()
        except Exception as error:  # noqa: BLE001 (whatever a reader lets through is the finding)
            return tried, seed, error
        if time.monotonic() > end:
            return tried, seed, None
        seed += 1


_CHECKS = "too_slow data_too_large filter_too_much large_base_example"
_WHOLE = [HealthCheck[name] for name in _CHECKS.split()]


def main(argv: list[str] | None = None) -> int:
    """Run the readers one after the other; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(READERS), action="append")
    asked = parser.parse_args(argv)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    failed = []
    for name in asked.only or READERS:
        tried, seed, error = fuzz(READERS[name], seconds=asked.seconds, seed=asked.seed)
        print(f"{name:<16} {tried:>7} inputs{'' if error is None else '  FAILED'}", flush=True)  # noqa: T201
        if error is not None:
            failed.append(name)
            traceback.print_exception(error, limit=-6, file=sys.stdout)
            print(f"again: make fuzz FUZZ_S=0 ONLY={name} SEED={seed}", flush=True)  # noqa: T201
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
