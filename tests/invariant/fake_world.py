"""A world in one process: its clock jumps, its servers play a script, and it can be killed.

All that runs in it is the real code, from `evaluate` to `scores.json`; only rows, connections and
time are made up.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest.mock import patch

import aiohttp
from multidict import CIMultiDict
from scripted_servers import FENCED
from vendor_replies import ASKED, Reply

from medix_eval.data.samples import read_samples
from medix_eval.data.tasks import Catalogue, TaskFile, TaskSettings
from medix_eval.evaluation.evaluation import Settings, evaluate
from medix_eval.evaluation.panel import JudgeChoice
from medix_eval.evaluation.pipeline import OpenedTask
from medix_eval.judging.protocol import load_protocol
from medix_eval.models.requests import RetryingModel
from medix_eval.models.resolve import ModelFlags
from medix_eval.records import CompletionRecord, Kind, Sample
from medix_eval.results.scores import Scores
from medix_eval.results.store import JudgedRun
from medix_eval.storage.jsonl import JsonLines

MODEL = "http://model.test/v1"
JUDGES = {f"http://judge{number}.test/v1": f"judge {number}" for number in (1, 2, 3)}
"""The judges there may be, by their address."""
TASK = "made_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row of the made-up task."""

    number: int
    kind: Kind
    reference: str
    options: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """What is asked; the number tells it from all others."""
        listed = "".join(f"\n{chr(65 + at)}. {text}" for at, text in enumerate(self.options))
        return f"Question {self.number} of them: what is shown?{listed}"


class _Rows(list[Question]):
    cache_files: tuple[()] = ()

    def __getitem__(self, rows: Any) -> Any:
        return {"question": [list.__getitem__(self, row) for row in rows]}


class _Task:
    """What the pipeline asks of an open task."""

    name = TASK
    is_restricted = False
    mirror = revision = option_prefix = None
    changes: tuple[str, ...] = ()

    def __init__(self, questions: Sequence[Question], settings: TaskSettings) -> None:
        self.rows, self.settings = _Rows(questions), settings

    def fingerprint(self) -> dict[str, str]:
        return {}

    def prompt_text(self, fields: Mapping[str, Question], *, row: int) -> str:
        return fields["question"].prompt

    def options(self, fields: Mapping[str, Question], *, row: int) -> tuple[str, ...]:
        return fields["question"].options

    def reference(
        self, fields: Mapping[str, Question], *, row: int, options: tuple[str, ...]
    ) -> str:
        return fields["question"].reference

    def stored_images(self, fields: Mapping[str, Question], *, row: int) -> tuple[bytes, ...]:
        return ()

    def kind(self, fields: Mapping[str, Question], *, row: int) -> Kind:
        return fields["question"].kind

    def facts(self, fields: Mapping[str, Question], *, row: int) -> dict[str, str]:
        return {}

    def columns(self, fields: Mapping[str, Question], *, row: int) -> dict[str, str]:
        return {}


_SETTINGS = TaskSettings(
    kind=Kind.MULTIPLE_CHOICE,
    modality="text",
    data_class="public",
    licence="mit",
    num_samples=None,
)
_FILE = TaskFile(
    name=TASK,
    version="1",
    path=Path(f"{TASK}.yaml"),
    settings=_SETTINGS,
    dataset_path=None,
    dataset_name=None,
    revision=None,
    dataset_kwargs={},
    split="test",
    digest="0" * 64,
)
_CATALOGUE = Catalogue(tasks={TASK: _FILE}, groups={})


@dataclass(slots=True, kw_only=True)
class Asked:
    """One request that a server got, and what became of it."""

    role: str
    """`model`, or `judge` and its number."""
    number: int
    """Of the question."""
    vote: str = ""
    """Which of the judge's prompts it was."""
    answer: str = ""
    """What the judge was shown."""
    reply: Reply
    at: float
    is_delivered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """When a run ends before its time, and what is lost of its last lines."""

    at_reply: int | None = None
    """After so many replies; else `at_line`."""
    at_line: int | None = None
    is_hard: bool = False
    """Nothing runs after it, as with SIGKILL; else as with Ctrl-C."""
    torn: float = 0.0
    """Share of the line just written that is lost."""
    kept: tuple[float, float] | None = None
    """Of a power cut: shares of what this run wrote that reached the disk, of completions and
    verdicts."""
    in_order: bool = True
    """Whether no verdict reached the disk before its completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    scores: Scores | None = None
    error: BaseException | None = None
    was_killed: bool = False


class WrongRequest(Exception):
    """A server was not asked what the task says."""


@dataclass(slots=True, kw_only=True)
class World:
    """One history as it goes: the folder, the servers' script, the time."""

    out: Path
    questions: tuple[Question, ...]
    protocol: str
    num_judges: int
    """None under a protocol of rules; three are a jury."""
    uses_cache: bool
    concurrency: tuple[int, int]
    script: Callable[[World, Asked], Reply]
    """Decides what is replied to the n-th request about something."""
    models_reply: Callable[[str], Reply | None]
    asked: list[Asked] = field(default_factory=list)
    """Requests of this run."""
    wrong: list[str] = field(default_factory=list)
    """Requests that were not what the task says."""
    counts: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    are_models_well: bool = True
    """Whether both servers list their models in this run."""
    now: float = 1000.0
    rows: tuple[int, ...] = ()
    """What is asked in this run."""
    _sizes: dict[Path, int] = field(default_factory=dict)
    """Of the files before this run, as far as their lines are whole."""
    _kill: Kill | None = None
    _num_replies: int = 0
    _num_lines: int = 0
    _was_killed: bool = False
    _snapshot: dict[Path, bytes] | None = None
    _main: asyncio.Task[Any] | None = None

    def run(self, rows: Sequence[int], kill: Kill | None = None) -> Ended:
        """Run the evaluation of some rows once, as its command line would."""
        self.asked, self._kill, self._was_killed, self._snapshot = [], kill, False, None
        self._num_replies = self._num_lines = 0
        self.rows = tuple(rows)
        files = self.out.rglob("*.jsonl")
        self._sizes = {path: path.read_bytes().rfind(b"\n") + 1 for path in files}
        scores, failed = None, None
        with _in_world(self):
            try:
                scores = evaluate(self._settings(), _CATALOGUE)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (judged later)
                failed = error
        if self._snapshot is not None:
            self._restore(self._snapshot)
            scores = None
        if self._was_killed and isinstance(failed, asyncio.CancelledError):
            failed = None
        return Ended(scores=scores, error=failed, was_killed=self._was_killed)

    def reply_to(self, url: str, body: Mapping[str, Any]) -> Asked:
        """Decide on the reply to a request, after a look at it."""
        role = _role_at(url)
        (turn,) = body["messages"]
        text = turn["content"]
        found = re.search(r"(?:Question|Study) (\d+) of them", text)
        if found is None or turn["role"] != "user" or body["model"] != ASKED:
            raise WrongRequest(f"the {role} was sent {body}")
        number = int(found[1])
        asked = Asked(role=role, number=number, reply=_NOTHING, at=self.now)
        if role == "model":
            if text != self.questions[number].prompt:
                self.wrong.append(f"question {number} became {text!r}")
        else:
            asked.vote, asked.answer = _vote_of(text)
        self.counts[role, number, asked.vote] += 1
        asked.reply = self.script(self, asked)
        self.asked.append(asked)
        return asked

    def delivered(self, asked: Asked) -> None:
        """Note that a reply arrived; this may be the moment of the kill."""
        asked.is_delivered = True
        self._num_replies += 1
        if self._kill and self._kill.at_reply == self._num_replies:
            self._killed(self._kill)

    def appended(self, path: Path) -> None:
        """Note that a line was written; this may be the moment of the kill."""
        self._num_lines += 1
        if self._kill and self._kill.at_line == self._num_lines:
            self._killed(self._kill, writing=path)

    def _killed(self, kill: Kill, *, writing: Path | None = None) -> None:
        self._was_killed = True
        assert self._main is not None
        self._main.cancel()
        if kill.is_hard:
            self._snapshot = {path: path.read_bytes() for path in self.out.rglob("*.jsonl")}
            if writing is not None:
                self._snapshot[writing] = _torn(self._snapshot[writing], kill.torn)
            if kill.kept is not None:
                self._snapshot = self._without_power(
                    self._snapshot, kill.kept, in_order=kill.in_order
                )

    def write_old(self, number: int, reply: Reply) -> Asked:
        """Keep a completion as a version did that took every text for an answer."""
        question, ids = self.questions[number], self.sample_ids()
        record = CompletionRecord(
            task=_FILE.key,
            sample_id=next(name for name, row in ids.items() if row == number),
            row=number,
            kind=question.kind,
            prompt=question.prompt,
            reference=question.reference,
            options=question.options,
            completion=reply.said,
            finish_reason=json.loads(reply.body)["choices"][0]["finish_reason"],
            requests=1,
        )
        (file,) = self.out.rglob("completions.jsonl")
        with file.open("rb+") as lines:
            lines.truncate(file.read_bytes().rfind(b"\n") + 1)
            lines.seek(0, 2)
            lines.write(record.model_dump_json(exclude_defaults=True).encode() + b"\n")
        return Asked(role="model", number=number, reply=reply, at=self.now, is_delivered=True)

    def _restore(self, snapshot: Mapping[Path, bytes]) -> None:
        for path in [*self.out.rglob("*.jsonl")]:
            path.write_bytes(snapshot.get(path, b""))

    def _without_power(
        self, files: Mapping[Path, bytes], kept: tuple[float, float], *, in_order: bool
    ) -> dict[Path, bytes]:
        """Return what of some files reached the disk."""
        found, lost = dict(files), set[str]()
        for path in sorted(files):  # completions, then verdicts
            content, before = files[path], self._sizes.get(path, 0)
            share = kept[path.name.startswith("verdicts")]
            end = before + int((len(content) - before) * share)
            if path.name.startswith("completions"):
                start = content.rfind(b"\n", 0, end) + 1
                lost = {json.loads(line)["sample_id"] for line in _whole_lines(content[start:])}
            elif in_order:
                for line in _whole_lines(content[before:]):
                    if json.loads(line)["sample_id"] in lost:
                        end = min(end, content.index(line, before))
            found[path] = content[:end]
        return found

    def is_right(self, number: int, answer: str) -> bool:
        """Tell whether an answer is right, as an honest judge sees it."""
        question = self.questions[number]
        right = question.reference
        if question.options:
            right = "ABCD"[question.options.index(right)]
        return answer.split()[:5] == right.split()[:5]

    def run_to_end(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in this world's time."""
        with asyncio.Runner(loop_factory=lambda: _Loop(self)) as runner:
            self._main = runner.get_loop().create_task(work)
            return runner.get_loop().run_until_complete(self._main)

    def _settings(self) -> Settings:
        flags = ModelFlags(role="judge", concurrency=self.concurrency[1])
        judges: tuple[JudgeChoice, ...] = (JudgeChoice(name=None, flags=flags),)
        if self.num_judges:
            judges = tuple(
                JudgeChoice(name=f"openai:{ASKED}", flags=replace(flags, base_urls=(url,)))
                for url in [*JUDGES][: self.num_judges]
            )
        return Settings(
            model=f"openai:{ASKED}",
            model_flags=ModelFlags(
                role="model", base_urls=(MODEL,), concurrency=self.concurrency[0]
            ),
            tasks=(TASK,),
            protocol=_PROTOCOLS[self.protocol],
            judges=judges,
            limit=None if self.is_whole else len(self.rows),
            seed=0,
            out=self.out,
            data_root=None,
            use_cache=self.uses_cache,
            allow_partial=False,
        )

    def opened(self) -> list[OpenedTask]:
        """Return the task of this world, open."""
        task: Any = _Task(self.questions, _SETTINGS)
        rows = list(self.rows)
        return [OpenedTask(file=_FILE, task=task, rows=rows, is_limited=not self.is_whole)]

    @property
    def is_whole(self) -> bool:
        """Whether every row is asked."""
        return len(self.rows) == len(self.questions)

    def sample_ids(self) -> dict[str, int]:
        """Return the question behind each sample's id."""
        task: Any = _Task(self.questions, _SETTINGS)
        rows = range(len(self.questions))
        read = read_samples(task, rows, key=_FILE.key, done=set(), taken=set())
        return {one.id: one.row for one in read if isinstance(one, Sample)}


_NOTHING = Reply(name="", means=frozenset())
_PROTOCOLS = {name: load_protocol(name, overrides=()) for name in ("rules", "medix", "cascade")}
_LABELS = {"Asked:": "3", "Exam question:": "2", "Task of the trainee:": "2"}
"""The number of a judge's prompt, by the line above the question; the first has plain ones."""


def _role_at(url: str) -> str:
    return "model" if url.startswith(MODEL) else JUDGES[url.partition("/v1")[0] + "/v1"]


def _vote_of(text: str) -> tuple[str, str]:
    """Return which of the prompts a judge got, and the answer in it."""
    prompt = next((number for line, number in _LABELS.items() if f"\n{line}\n" in text), "1")
    *_, shown = FENCED.finditer(text)
    return prompt, shown[2]


def _whole_lines(content: bytes) -> list[bytes]:
    return content.split(b"\n")[:-1]


def _torn(content: bytes, share: float) -> bytes:
    """Cut a share of the last line off."""
    start = content.rfind(b"\n", 0, len(content) - 1) + 1
    kept = int((len(content) - start) * (1 - share))
    return content[: start + kept]


class _Jumping(selectors.BaseSelector):
    """A selector that never waits: where nothing is ready, time jumps to what comes next."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._files: dict[Any, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits, and for nothing")
        if timeout > 0:
            self._world.now += timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, 0, events, data)
        self._files[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files.pop(fileobj)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._files[fileobj]

    def get_map(self) -> Any:
        return self._files


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, world: World) -> None:
        self._world = world
        super().__init__(_Jumping(world))

    def time(self) -> float:
        return self._world.now


_WORLD: list[World] = []
"""The one that is running."""


class _Response:
    def __init__(self, asked: Asked | None, reply: Reply) -> None:
        self._asked, self._reply = asked, reply
        self.status = reply.status
        self.headers = CIMultiDict({"Content-Type": "application/json", **reply.headers})
        self.content, self.content_length = self, None

    async def iter_any(self) -> AsyncIterator[bytes]:
        if isinstance(self._reply.error, aiohttp.ClientPayloadError):
            raise copy(self._reply.error)
        yield self._reply.body


class _Request:
    def __init__(self, url: str, data: bytes | None) -> None:
        self._url, self._data = url, data

    async def __aenter__(self) -> _Response:
        world, asked = _WORLD[-1], None
        if self._data is None:
            reply = world.models_reply(_role_at(self._url))
            reply = reply or Reply(name="", means=frozenset(), body=_SERVED)
        else:
            asked = world.reply_to(self._url, json.loads(self._data))
            reply = asked.reply
        await asyncio.sleep(reply.delay_s)
        if asked is not None:
            world.delivered(asked)
        if reply.error and not isinstance(reply.error, aiohttp.ClientPayloadError):
            raise copy(reply.error)  # else it would keep all that it was ever raised in
        return _Response(asked, reply)

    async def __aexit__(self, *_: object) -> None:
        pass


_SERVED = json.dumps({"object": "list", "data": [{"id": ASKED}]}).encode()


class _Session:
    """What stands where aiohttp's session would be."""

    def __init__(self, **_: Any) -> None:
        pass

    def request(self, method: str, url: str, *, data: Any = None, **_: Any) -> _Request:
        return _Request(url, data)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


def _retrying(**given: Any) -> RetryingModel:
    clock = _WORLD[-1]
    spread: Any = random.Random(0)  # noqa: S311 (no secret)
    return RetryingModel(_random=spread, clock=lambda: clock.now, **given)


def _write_page(run: JudgedRun) -> Path:
    page = run.place / "report.html"
    page.write_text("what a browser would show")
    return page


def _run_to_end(work: Coroutine[Any, Any, Any]) -> Any:
    return _WORLD[-1].run_to_end(work)


_append = JsonLines.append


def _appending(self: JsonLines, line: str) -> None:
    _append(self, line)
    if _WORLD:
        _WORLD[-1].appended(self.path)


@contextmanager
def _in_world(world: World) -> Iterator[None]:
    _WORLD.append(world)
    try:
        yield
    finally:
        _WORLD.pop()


@contextmanager
def fake_surroundings() -> Iterator[None]:
    """Put the made-up rows, connections and time in place, for all worlds inside."""
    here = "medix_eval.evaluation."
    clock = SimpleNamespace(monotonic=lambda: _WORLD[-1].now if _WORLD else 0.0)
    with (
        patch("aiohttp.ClientSession", _Session),
        patch("medix_eval.models.openai_server._connector", lambda _: None),
        patch("aiohttp.DummyCookieJar", lambda **_: None),
        patch("medix_eval.models.requests.time", clock),
        patch(here + "pipeline.RetryingModel", _retrying),
        patch(here + "panel.RetryingModel", _retrying),
        patch(here + "evaluation.run_to_end", _run_to_end),
        patch(here + "evaluation.open_tasks", lambda *_: _WORLD[-1].opened()),
        patch(here + "evaluation._versions", dict),
        patch(here + "evaluation._hardware", dict),
        patch("medix_eval.results.metrics.entry_points", lambda **_: ()),
        patch("medix_eval.report.page.write_run_page", _write_page),
        patch.object(JsonLines, "append", _appending),
    ):
        yield
