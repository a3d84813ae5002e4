"""The faults, one row of the table each: what is disturbed, when, and how it may end."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

import damage
from forked import Command
from trial import NUM_SAMPLES, Plan, Trial, answer

from medix_eval.testing import FAULTS

OF_SERVERS = 4
"""Exit code of a run whose server cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault."""

    name: str
    plan: Plan = field(default_factory=Plan)
    act: Callable[[Trial], None] = Trial.finish
    completes: bool = True
    """Whether all samples can have a score in the end."""
    waits: bool = False
    """Whether its trials mostly wait, so that more of them can run at once."""
    needs: str = ""
    """Why it cannot be run here, if so."""


# What a server says


_SHARES = {"huge body": 0.04, "gzip bomb": 0.06, "429 year": 0.04, "duplicate": 0.15}
_ODD = {
    "429 with an odd Retry-After": tuple(
        f"429 {kind}" for kind in ("zero", "negative", "fraction", "past", "garbage")
    ),
    "json list or number": ("json list", "json number"),
}
"""Faults of the candidate that share a row; the others have one each."""
_TOGETHER = {
    "any 429 with a Retry-After": tuple(
        name for name in FAULTS if name.startswith("429 ") and name != "429 year"
    ),
    "any answer too late": ("latency", "out of order", "slow drip"),
    "any gzip": ("gzip", "gzip cut"),
    "any status": ("429", "500", "502", "503", "503 page"),
    "any broken connection": ("reset", "reset in body", "closed in body", "cut chunk", "duplicate"),
    "any wrong JSON": (
        "cut json", "trailing bytes", "deep json", "json list", "json number", "bad utf-8", "empty",
    ),
    "any answer of something else": ("page", "events", "other model", "null content"),
    "any stray refusal": ("redirect", "401", "404"),
}  # fmt: skip
"""Faults of the judge that share a row."""


def _of_servers() -> Iterator[Row]:
    grouped = {name for names in _ODD.values() for name in names}
    for name, faults in ({name: (name,) for name in FAULTS if name not in grouped} | _ODD).items():
        is_long = name == "429 year"
        plan = Plan(
            candidate=faults, share=_SHARES.get(name, 0.25), limit_s=400 if is_long else 120
        )
        yield Row(name=f"candidate: {name}", plan=plan, waits=is_long)
    alone = {name: (name,) for name in ("429 year", "huge body", "gzip bomb")}
    for name, faults in (_TOGETHER | alone).items():
        is_long = name == "429 year"
        plan = Plan(
            protocol="medix",
            judge=faults,
            share=_SHARES.get(name, 0.25) / (1 + is_long),
            limit_s=400 if is_long else 120,
        )
        yield Row(name=f"judge: {name}", plan=plan, waits=is_long)
    short = tuple(name for name in FAULTS if name not in {"429 year", "huge body", "gzip bomb"})
    yield Row(
        name="candidate and judge: every short fault",
        plan=Plan(protocol="medix", candidate=short, judge=short),
    )
    yield Row(
        name="candidate and judge: answers repeat the key",
        plan=Plan(protocol="medix", candidate=("401", "503"), judge=("503",), echoes=True),
    )
    for name in ("page", "401", "404", "redirect"):
        yield Row(
            name=f"the only server: {name} for ever",
            plan=Plan(candidate=(name,), share=1.0, times=math.inf),
            act=_ends_at_once,
            completes=False,
        )
    yield Row(name="the only server: refused from the start", act=_refused, completes=False)
    for name in ("page", "401", "404", "redirect", "refused"):
        yield Row(name=f"one of two servers: {name} for ever", act=_beside(name))


def _ends_at_once(trial: Trial) -> None:
    trial.end(trial.start(), OF_SERVERS)


def _refused(trial: Trial) -> None:
    trial.base_urls[:] = [_nowhere(trial)]
    _ends_at_once(trial)


def _beside(name: str) -> Callable[[Trial], None]:
    def act(trial: Trial) -> None:
        if name == "refused":
            bad = _nowhere(trial)
        else:
            bad = trial.serve(answer(trial.plan), (name,), share=1.0, times=math.inf).url
        trial.base_urls.insert(trial.rng.randint(0, 1), bad)
        trial.finish()

    return act


def _nowhere(trial: Trial) -> str:
    held = trial.stack.enter_context(socket.socket())
    held.bind(("127.0.0.1", 0))  # and does not listen
    return f"http://127.0.0.1:{held.getsockname()[1]}/v1"


# A server that goes away


def _away(role: str, *, patience_s: float | None = None) -> Callable[[Trial], None]:
    def act(trial: Trial) -> None:
        server = trial.candidate if role == "candidate" else trial.judge
        flag = "--patience" if role == "candidate" else "--judge-patience"
        flags = [flag, str(patience_s)] if patience_s else []
        process = trial.start(*flags)
        trial.wait_for(trial.some_requests(server), process)
        away_s = trial.rng.uniform(0, 20) if patience_s is None else 3 * patience_s
        server.outage(away_s)
        back_at = time.monotonic() + away_s + 0.5
        code = trial.end(process, *([OF_SERVERS] if patience_s else [0]))
        if code not in {0, 1}:
            time.sleep(max(0.0, back_at - time.monotonic()))
            trial.finish()

    return act


def _of_outages() -> Iterator[Row]:
    for role in ("candidate", "judge"):
        protocol = "rules" if role == "candidate" else "medix"
        plan = Plan(protocol=protocol, delay_s=0.1)
        yield Row(name=f"{role}: away for 0 to 20 s", plan=plan, act=_away(role), waits=True)
        act = _away(role, patience_s=3.0)
        yield Row(name=f"{role}: away for longer than --patience", plan=plan, act=act, waits=True)


# Signals


def _reached(trial: Trial, phase: str, process: Command) -> None:
    if phase == "opening":
        time.sleep(trial.rng.uniform(0.05, 0.8))
    elif phase == "answering":
        trial.wait_for(trial.some_requests(trial.candidate), process)
    elif phase == "judging":
        trial.wait_for(trial.some_requests(trial.judge), process)
    else:
        trial.wait_for(lambda: trial.num_verdicts >= NUM_SAMPLES, process)
        time.sleep(trial.rng.uniform(0, 0.2))


_PHASES = ("opening", "answering", "judging", "scoring")


def _signalled(first: int, *signals: int, allowed: tuple[int, ...]) -> Callable[[Trial], None]:
    def act(trial: Trial) -> None:
        process = trial.start()
        _reached(trial, _PHASES[(first + trial.number) % len(_PHASES)], process)
        for number, one in enumerate(signals):
            time.sleep(trial.rng.uniform(1, 3) if number else 0)
            if process.poll() is None:
                os.killpg(process.pid, one)
        if trial.end(process, 0, *allowed) not in {0, 1}:
            trial.finish()

    return act


def _of_signals() -> Iterator[Row]:
    plan = Plan(protocol="medix", delay_s=0.05)
    rows: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "SIGKILL": ((signal.SIGKILL,), (-signal.SIGKILL,)),
        "SIGTERM": ((signal.SIGTERM,), (-signal.SIGTERM, 128 + signal.SIGTERM, 130)),
        "SIGINT": ((signal.SIGINT,), (130, -signal.SIGINT)),
        "SIGSTOP and SIGCONT": ((signal.SIGSTOP, signal.SIGCONT), ()),
    }
    for first, (name, (signals, allowed)) in enumerate(rows.items()):
        act = _signalled(first, *signals, allowed=allowed)
        yield Row(name=f"{name} while opening, answering, judging, scoring", plan=plan, act=act)


# The machine


def _full_disk(trial: Trial) -> None:
    limit = round(math.exp(trial.rng.uniform(math.log(2_000), math.log(200_000))))
    if trial.end(trial.start(before=["prlimit", f"--fsize={limit}"]), 0, 2) not in {0, 1}:
        trial.finish()


def _read_only(trial: Trial) -> None:
    # Root may write anywhere, unless it gives up that right.
    plain = ["setpriv", "--bounding-set", "-dac_override"] if os.geteuid() == 0 else []
    if trial.number % 2:
        process = trial.start(before=plain)
        trial.wait_for(trial.some_requests(trial.candidate), process)
        folders = [path for path in trial.out.rglob("*") if path.is_dir()]
    else:
        process, folders = None, []
    for folder in (trial.out, *folders):
        folder.chmod(0o500)
    code = trial.end(process or trial.start(before=plain), 2)
    for folder in (trial.out, *folders):
        folder.chmod(0o700)
    if code not in {0, 1}:
        trial.finish()


def _deleted(trial: Trial) -> None:
    process = trial.start()
    trial.wait_for(trial.some_requests(trial.candidate), process)
    for folder in trial.out.iterdir():
        shutil.rmtree(folder, ignore_errors=True)
    if trial.end(process, 0, 2) not in {0, 1}:
        trial.finish()


def _few_files(trial: Trial) -> None:
    limit = trial.rng.randint(28, 40)
    process = trial.start("--concurrency", "64", before=["prlimit", f"--nofile={limit}"])
    if trial.end(process, 0, 2) not in {0, 1}:
        trial.finish()


def _two_writers(trial: Trial) -> None:
    first = trial.start()
    time.sleep(trial.rng.uniform(0, 1))
    second = trial.start()
    trial.end(second, 0, 2)
    if trial.end(first, 0, 2) not in {0, 1}:
        trial.finish()


def _libfaketime() -> str:
    found = sorted(glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))  # noqa: PTH207 (many places)
    return found[0] if found else ""


def _clock_jump(trial: Trial) -> None:
    clock = trial.out.parent / "clock"
    clock.write_text("+0")
    process = trial.start(
        LD_PRELOAD=_libfaketime(),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        DONT_FAKE_MONOTONIC="1",
    )
    trial.wait_for(trial.some_requests(trial.candidate), process)
    clock.write_text(trial.rng.choice(("-1h", "+1h", "-400d", "+400d")))
    if trial.end(process, 0) not in {0, 1}:
        trial.finish()


def _of_the_machine() -> Iterator[Row]:
    slow = Plan(delay_s=0.1)
    yield Row(name="the disk is full", plan=Plan(protocol="medix"), act=_full_disk)
    yield Row(name="the out folder is read-only", plan=slow, act=_read_only)
    yield Row(name="the run folder is deleted", plan=slow, act=_deleted)
    yield Row(name="few open files are allowed", plan=slow, act=_few_files)
    yield Row(name="two commands write one folder", plan=slow, act=_two_writers)
    yield Row(
        name="the clock jumps",
        plan=Plan(delay_s=0.1, candidate=("503", "429 date", "429 past")),
        act=_clock_jump,
        needs="" if _libfaketime() else "libfaketime is not installed",
    )


# Files


def _damaged(name: str, hurt: Callable[[Path, damage.Dice], str]) -> Callable[[Trial], None]:
    def act(trial: Trial) -> None:
        trial.finish()
        of_cache = name == "verdicts.sqlite"
        path = trial.out / ".cache" / name if of_cache else trial.path(name)
        trial.edited = hurt(path, trial.rng)
        for folder in trial.out.glob("*/*/judged") if of_cache else ():
            shutil.rmtree(folder)
        told = _finished(trial, path)
        if told:  # what its hint says to do
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(lines[: told - 1] + lines[told:]))
            trial.finish()

    return act


def _finished(trial: Trial, path: Path) -> int:
    """Give the command; return the number of the line that it wants to have deleted."""
    code = trial.end(trial.start(), 0, *([2] if path.suffix == ".jsonl" else []))
    found = re.search(r"line (\d+) is .*\n.*delete that line", trial.last_words)
    if code == 2 and found:
        return int(found[1])
    if code:
        trial.finish()
    return 0


def _of_files() -> Iterator[Row]:
    plan = Plan(protocol="medix")
    for says, hurt in (
        ("random bytes", damage.rot),
        ("another schema", damage.replace_schema),
        ("points of 99", damage.raise_points),
    ):
        act = _damaged("verdicts.sqlite", hurt)
        yield Row(name=f"the verdict cache: {says}", plan=plan, act=act)
    for name in ("completions.jsonl", "verdicts.jsonl"):
        for says, hurt in (
            ("a torn last line", damage.tear),
            ("a line that cannot be read", damage.garble),
            ("an edited line, which may count", damage.edit),
        ):
            yield Row(name=f"{name}: {says}", plan=plan, act=_damaged(name, hurt))


ROWS = (*_of_servers(), *_of_outages(), *_of_signals(), *_of_the_machine(), *_of_files())
