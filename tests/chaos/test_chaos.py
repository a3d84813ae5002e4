"""The trials see what is planted: a loss, a double, a wrong score, a leak, a wrong exit code."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import damage
import pytest
from chaos import line, run, write_rows
from rows import ROWS, Row
from trial import NUM_SAMPLES, TASK, Counts, Kept, Plan, Trial, compared, kept_in, leaks

from medix_eval.testing import FAULTS

KEY = "sk-planted-0"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chaos")
    write_rows(folder / "hub")
    trial = Trial(Plan(), seed=0, number=0, folder=folder / "trial", hub=folder / "hub")
    with trial.open():
        trial.finish()
    assert trial.counts.codes == {0: 1}, trial.counts.unexpected
    return trial.out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def undisturbed(finished: Path) -> Kept:
    return kept_in(finished, KEY)


def dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 (no secret)


def rewrite(out: Path, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    (path,) = out.rglob(name)
    lines = [json.loads(one) for one in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))


pytestmark = pytest.mark.slow


def test_an_undisturbed_run_beside_itself_is_clean(out: Path, undisturbed: Kept) -> None:
    assert len(undisturbed.samples) == NUM_SAMPLES
    assert compared(kept_in(out, KEY), undisturbed).is_clean
    assert leaks(out, KEY, b"") == 0


def test_a_missing_verdict_is_lost(out: Path, undisturbed: Kept) -> None:
    rewrite(out, "verdicts.jsonl", lambda lines: lines.pop(3))

    assert compared(kept_in(out, KEY), undisturbed).lost == 1


def test_a_failure_is_lost(out: Path, undisturbed: Kept) -> None:
    rewrite(out, "verdicts.jsonl", lambda lines: lines[3].update(outcome="request_failed"))

    assert compared(kept_in(out, KEY), undisturbed).lost == 1
    assert compared(kept_in(out, KEY), undisturbed, completes=False).lost == 0


def test_a_second_answer_is_doubled_and_a_failure_before_it_is_not(
    out: Path, undisturbed: Kept
) -> None:
    failed = {"completion": None, "failure": {"kind": "request_failed", "message": ""}}
    rewrite(out, "completions.jsonl", lambda lines: lines.append({**lines[0], **failed}))
    assert compared(kept_in(out, KEY), undisturbed).is_clean

    rewrite(out, "completions.jsonl", lambda lines: lines.append(lines[0]))
    assert compared(kept_in(out, KEY), undisturbed).doubled == 1


def test_a_sample_that_nobody_asked_is_doubled(out: Path, undisturbed: Kept) -> None:
    rewrite(out, "verdicts.jsonl", lambda lines: lines.append({**lines[0], "sample_id": "0" * 16}))

    assert compared(kept_in(out, KEY), undisturbed).doubled == 1


def test_another_completion_or_score_is_wrong(out: Path, undisturbed: Kept) -> None:
    damage.edit(next(out.rglob("completions.jsonl")), dice(0))
    assert compared(kept_in(out, KEY), undisturbed).wrong == 1

    damage.edit(next(out.rglob("verdicts.jsonl")), dice(1))
    assert compared(kept_in(out, KEY), undisturbed).wrong == 2


def test_what_was_edited_by_hand_must_be_there_and_no_more(out: Path, undisturbed: Kept) -> None:
    edited = damage.edit(next(out.rglob("completions.jsonl")), dice(2))
    assert compared(kept_in(out, KEY), undisturbed, edited=edited).is_clean

    damage.edit(next(out.rglob("verdicts.jsonl")), dice(3))
    assert compared(kept_in(out, KEY), undisturbed, edited=edited).wrong == 1


def test_another_score_of_the_task_is_wrong(out: Path, undisturbed: Kept) -> None:
    (path,) = out.glob("*/*/judged/*/scores.json")
    scores = json.loads(path.read_text())
    scores["tasks"][TASK]["score"] = 0.99
    path.write_text(json.dumps(scores))

    assert compared(kept_in(out, KEY), undisturbed).wrong == 1


def test_a_key_is_found_in_files_in_the_cache_and_in_what_was_said(out: Path) -> None:
    (out / "log").write_text(f"sent Bearer {KEY}.")
    (out / ".cache").mkdir()
    with closing(sqlite3.connect(out / ".cache" / "verdicts.sqlite")) as opened, opened:
        opened.execute("CREATE TABLE other (text)")
        opened.execute("INSERT INTO other VALUES (?)", (KEY,))

    assert leaks(out, KEY, f"error: {KEY}".encode()) >= 3


def test_every_damage_changes_the_file(out: Path) -> None:
    for hurt in (damage.tear, damage.garble, damage.edit, damage.rot):
        path = next(out.rglob("completions.jsonl"))
        before = path.read_bytes()
        hurt(path, dice(4))
        assert path.read_bytes() != before
        path.write_bytes(before)


def test_a_command_that_takes_too_long_hangs_and_is_ended(finished: Path, tmp_path: Path) -> None:
    plan = Plan(limit_s=0.5, delay_s=2.0)
    hub = finished.parent.parent / "hub"
    trial = Trial(plan, seed=0, number=0, folder=tmp_path, hub=hub)
    with trial.open():
        assert trial.end(trial.start(), 0) == -9

    assert trial.counts.hung == 1
    assert len(trial.counts.unexpected) == 1


def test_every_fault_of_the_server_has_a_row_for_candidate_and_judge() -> None:
    tried = {
        role: {fault for row in ROWS for fault in getattr(row.plan, role)}
        for role in ("candidate", "judge")
    }

    assert tried == {"candidate": {*FAULTS}, "judge": {*FAULTS}}
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_row_that_cannot_be_run_says_so() -> None:
    row = Row(name="the clock jumps", needs="libfaketime is not installed")

    assert line(row, Counts()).endswith("| not run: libfaketime is not installed |\n")


@pytest.mark.long
def test_the_same_seed_makes_the_same_trial(tmp_path: Path) -> None:
    rows = [row for row in ROWS if row.name == "candidate: 503"]

    once, again = (
        run(rows, 1, seed=5, jobs=1, folder=tmp_path / name) for name in ("once", "again")
    )

    assert once == again
    assert once[0].is_clean
