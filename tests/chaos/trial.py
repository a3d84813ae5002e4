"""One trial: the real command, in a process of its own, against servers that fail by plan."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from damage import sqlite_of
from forked import Command, Forked
from scripted_servers import asked_answer, asked_question

from medix_eval.testing import FaultyServer, Reply, prompt_text

NUM_SAMPLES = 60
TASK = "medqa"
_RUNS = 5
"""So often the same command is given again, where a fault ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a trial's servers do."""

    protocol: str = "rules"
    candidate: tuple[str, ...] = ()
    """Faults of the model's server."""
    judge: tuple[str, ...] = ()
    share: float = 0.25
    times: float = 2
    delay_s: float = 0.0
    """How long each answer takes."""
    echoes: bool = False
    """Whether answers, too, repeat the key that came with the request; errors always do."""
    limit_s: float = 120.0
    """A command that takes longer hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is known of one sample at the end."""

    completion: str | None
    outcome: str
    score: float | None
    is_scored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a run folder holds."""

    samples: dict[str, Sample] = field(default_factory=dict)
    valid_lines: Counter[str] = field(default_factory=Counter)
    """Completions that are answers, of each sample."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Of the task, in `scores.json`."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """What a trial cost."""

    trials: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    hung: int = 0
    leaked: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    """Exit codes that this fault does not excuse, with what was said."""

    def add(self, other: Counts) -> None:
        """Count another trial, too."""
        self.trials += other.trials
        self.lost += other.lost
        self.doubled += other.doubled
        self.wrong += other.wrong
        self.hung += other.hung
        self.leaked += other.leaked
        self.codes += other.codes
        self.unexpected += other.unexpected

    @property
    def is_clean(self) -> bool:
        """Whether nothing went wrong that must not."""
        numbers = (self.lost, self.doubled, self.wrong, self.hung, self.leaked)
        return not any(numbers) and not self.unexpected


def answer(plan: Plan) -> Callable[[dict[str, Any]], Reply]:
    """Answer by what is asked, so that an answer does not depend on when it was given."""

    def script(body: dict[str, Any]) -> Reply:
        text = f"The answer is {'ABCD'[_digit(prompt_text(body)) % 4]}."
        said = f"{text} I was sent {{authorization}}." if plan.echoes else text
        return Reply(text=said, delay_s=plan.delay_s)

    return script


def grade(plan: Plan) -> Callable[[dict[str, Any]], Reply]:
    """Judge by question and answer, so that all votes agree and come in any order."""

    def script(body: dict[str, Any]) -> Reply:
        prompt = prompt_text(body)
        points = _digit(asked_question(prompt) + asked_answer(prompt)[:16]) % 2
        verdict = {
            "reason": "I was sent {authorization}." if plan.echoes else "So it is.",
            "relation": "same" if points else "opposite",
            "score": points,
        }
        return Reply(text=json.dumps(verdict), delay_s=plan.delay_s)

    return script


def _digit(text: str) -> int:
    return sha256(text.encode()).digest()[0]


class Trial:
    """A folder, two servers, and the command that is run against them."""

    def __init__(self, plan: Plan, *, seed: int, number: int, folder: Path, hub: Path) -> None:
        self.plan, self.number = plan, number
        self.rng = random.Random(seed)  # noqa: S311 (no secret)
        self.out = folder / "out"
        self.key = f"sk-planted-{sha256(str(seed).encode()).hexdigest()[:32]}"
        self.counts = Counts(trials=1)
        self.base_urls: list[str] = []
        self.last_words = ""
        """The standard error of the last command."""
        self.edited = ""
        """The sample that was edited by hand: what it says then is what it says."""
        self._hub, self._seed, self._said = hub, seed, b""
        self.stack = ExitStack()
        self.out.mkdir(parents=True)

    @contextmanager
    def open(self) -> Iterator[Trial]:
        """Start the servers; what the trial started ends with it."""
        with self.stack:
            self.candidate = self.serve(answer(self.plan), self.plan.candidate)
            self.judge = self.serve(grade(self.plan), self.plan.judge)
            self.base_urls.append(self.candidate.url)
            yield self

    def serve(
        self,
        script: Callable[[dict[str, Any]], Reply],
        faults: Sequence[str],
        **given: Any,
    ) -> FaultyServer:
        """Start one more server, for as long as the trial lasts."""
        plan = {"share": self.plan.share if faults else 0.0, "times": self.plan.times, **given}
        says = "this request came with {authorization}"
        return self.stack.enter_context(
            FaultyServer(script, faults=faults or ("503",), seed=self._seed, says=says, **plan)
        )

    # The command

    def command(self, *flags: str) -> list[str]:
        """Return the command as a user gives it; it is the same each time."""
        argv = ["--model", "openai:scripted"]
        argv += [part for url in self.base_urls for part in ("--base-url", url)]
        if self.plan.protocol != "rules":
            argv += ["--judge", "openai:scripted", "--judge-base-url", self.judge.url]
        argv += ["--tasks", TASK, "--protocol", self.plan.protocol, "--data-root", str(self._hub)]
        return [*argv, "--concurrency", "8", "--out", str(self.out), "--json", *flags]

    def start(self, *flags: str, before: Sequence[str] = (), **env: str) -> Command:
        """Start the command in a process group of its own; `before` is put in front of it."""
        keys = {"OPENAI_API_KEY": self.key, "MEDIX_JUDGE_API_KEY": self.key}
        whole = {**os.environ, **keys, **env}
        if not before and not env:
            return Forked(self.command(*flags), env=whole, folder=self.out.parent)
        return subprocess.Popen(
            [*before, sys.executable, "-m", "medix_eval", *self.command(*flags)],
            env=whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def end(self, process: Command, *allowed: int) -> int:
        """Wait for its exit code, and note one that is not among the allowed."""
        try:
            out, err = process.communicate(timeout=self.plan.limit_s)
        except subprocess.TimeoutExpired:
            self.counts.hung += 1
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate(timeout=None)
        self._said += out + err
        self.last_words = err.decode(errors="replace")
        code = process.returncode
        assert code is not None
        self.counts.codes[code] += 1
        if code not in allowed:
            last = self.last_words.strip().splitlines()[-2:]
            self.counts.unexpected.append(f"{code}: {' / '.join(last)}")
        return code

    def finish(self, *allowed: int) -> None:
        """Give the command, and give it again until it is done."""
        for _ in range(_RUNS):
            if self.end(self.start(), 0, *allowed) in {0, 1}:
                return
            time.sleep(0.5)

    # What a trial waits for

    def wait_for(self, there: Callable[[], bool], process: Command | None = None) -> bool:
        """Wait until something is so; False if the process ended before."""
        until = time.monotonic() + self.plan.limit_s
        while time.monotonic() < until:
            if there():
                return True
            if process is not None and process.poll() is not None:
                return False
            time.sleep(0.003)
        return False

    def some_requests(self, server: FaultyServer) -> Callable[[], bool]:
        """Draw a moment by how much a server was asked."""
        least = self.rng.randint(2, round(0.8 * NUM_SAMPLES))
        return lambda: len(server.requests) >= least

    def path(self, name: str) -> Path:
        """Return the one file of this name, or a path where none is."""
        found = sorted(self.out.glob(f"*/*/{name}")) + sorted(self.out.glob(f"*/*/*/*/{name}"))
        return found[0] if found else self.out / "none" / name

    @property
    def num_verdicts(self) -> int:
        """How many verdicts were written."""
        path = self.path("verdicts.jsonl")
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    # What is left

    def weigh(self, undisturbed: Kept, *, completes: bool = True) -> Counts:
        """Count what was lost, doubled, wrong or leaked, beside the undisturbed run."""
        kept = kept_in(self.out, self.key)
        self.counts.add(compared(kept, undisturbed, completes=completes, edited=self.edited))
        self.counts.leaked += leaks(self.out, self.key, self._said)
        for server in (self.candidate, self.judge):
            self.counts.leaked += server.given["followed"]
        shutil.rmtree(self.out)
        return self.counts


def kept_in(out: Path, key: str) -> Kept:
    """Read what the run below this folder holds; lines that no JSON reader takes are nothing.

    Each trial has a key of its own: where one is kept, it counts as leaked, but not as wrong.
    """
    completions, verdicts = (
        [line for path in out.rglob(name) for line in _lines(path)]
        for name in ("completions.jsonl", "verdicts.jsonl")
    )
    valid = [line for line in completions if line.get("completion") is not None]
    texts = {line["sample_id"]: line["completion"].replace(key, "[redacted]") for line in valid}
    unscored = {"unjudged", "judge_failed", "request_failed", "skipped"}
    samples = {
        line["sample_id"]: Sample(
            completion=texts.get(line["sample_id"]),
            outcome=line["outcome"],
            score=line.get("score"),
            is_scored=line["outcome"] not in unscored,
        )
        for line in verdicts
    }
    scores: dict[str, Any] = {}
    for path in out.glob("*/*/judged/*/scores.json"):
        task = json.loads(path.read_bytes())["tasks"].get(TASK, {})
        scores = {key: task[key] for key in ("n", "n_scored", "score", "outcomes", "bounds")}
    return Kept(
        samples=samples,
        valid_lines=Counter(line["sample_id"] for line in valid),
        scores=scores,
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def compared(kept: Kept, undisturbed: Kept, *, completes: bool = True, edited: str = "") -> Counts:
    """Compare two folders, sample by sample; the edited one only has to be there."""
    counts = Counts()
    for sample_id, expected in undisturbed.samples.items():
        found = kept.samples.get(sample_id)
        if found is None or not found.is_scored:
            counts.lost += completes
        elif found != expected and sample_id != edited:
            counts.wrong += 1
    counts.doubled += sum(lines > 1 for lines in kept.valid_lines.values())
    counts.doubled += len(kept.samples.keys() - undisturbed.samples.keys())
    if completes and not (counts.lost or edited) and kept.scores != undisturbed.scores:
        counts.wrong += 1
    return counts


def leaks(out: Path, key: str, said: bytes) -> int:
    """Count the places that hold the key."""
    secret = key.encode()
    files = sum(secret in path.read_bytes() for path in out.rglob("*") if path.is_file())
    cache = out / ".cache" / "verdicts.sqlite"
    return files + (secret in said) + (key in sqlite_of(cache))
