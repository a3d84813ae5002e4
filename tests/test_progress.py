"""Progress in a log: whole lines on stderr where that is not a terminal."""

from __future__ import annotations

import io
import re
import sys
import threading

import pytest
from scripted_servers import Run, Serve, candidate, judge, strict

import medix_eval
from medix_eval.evaluation.pipeline import shown_progress

NEVER_S = 3600.0
LINE = re.compile(r"[\w ]+  \d+ of \d+ (answered|judged), \d+ failed, \d+:\d\d:\d\d")


class Log(io.StringIO):
    """A file in place of stderr that tells when so many lines are in it."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self.wanted, self.full = wanted, threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") >= self.wanted:
            self.full.set()
        return written


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_stage_is_told_of_as_it_begins_and_each_task_as_it_ends(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    with shown_progress(wanted=True, every_s=NEVER_S, clock=clock) as progress:
        progress.begin("answering", {"medqa@1": 2, "medmcqa@2": 1})
        clock.now = 65.4
        progress.done("answering", "medqa@1", failed=False)
        progress.done("answering", "medqa@1", failed=True)
        progress.done("judging", "medqa@1", failed=False)  # not begun
        clock.now = 3725.0
        progress.done("answering", "medmcqa@2", failed=False)
        progress.begin("judging", {"medqa@1": 1})
        progress.done("judging", "medqa@1", failed=False)

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "2 tasks  0 of 3 answered, 0 failed, 0:00:00",
        "medqa  2 of 2 answered, 1 failed, 0:01:05",
        "medmcqa  1 of 1 answered, 0 failed, 1:02:05",
        "medqa  0 of 1 judged, 0 failed, 0:00:00",
        "medqa  1 of 1 judged, 0 failed, 0:00:00",
    ]


def test_a_wait_for_the_first_answer_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(wanted=4)
    monkeypatch.setattr(sys, "stderr", log)

    with shown_progress(wanted=True, every_s=0.001, clock=Clock()) as progress:
        progress.begin("answering", {"medqa@1": 36, "medmcqa@1": 5})
        progress.begin("judging", {"medqa@1": 36})

        assert log.full.wait(30)
    lines = set(log.getvalue().splitlines()) - {"no sample under way, 0:00:00"}
    assert lines == {
        "2 tasks  0 of 41 answered, 0 failed, 0:00:00",
        "medqa  0 of 36 judged, 0 failed, 0:00:00",
    }


def test_a_model_that_takes_long_to_start_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(wanted=1)
    monkeypatch.setattr(sys, "stderr", log)

    with shown_progress(wanted=True, every_s=0.001, clock=Clock()):
        assert log.full.wait(30)

    assert set(log.getvalue().splitlines()) == {"no sample under way, 0:00:00"}


def test_all_tasks_share_one_line_however_many_are_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log(wanted=200)
    monkeypatch.setattr(sys, "stderr", log)

    with shown_progress(wanted=True, every_s=0.001, clock=Clock()) as progress:
        progress.begin("answering", {"medqa@1": 2, "medmcqa@1": 1, "rad_vqa@1": 2})
        progress.done("answering", "medqa@1", failed=True)
        progress.done("answering", "medmcqa@1", failed=False)
        assert log.full.wait(30)

    idle = "no sample under way, 0:00:00"  # the clock may come first
    lines = [line for line in log.getvalue().splitlines() if line != idle]
    assert lines[0] == "3 tasks  0 of 5 answered, 0 failed, 0:00:00"
    assert lines[-1] == "3 tasks  2 of 5 answered, 1 failed, 0:00:00"
    assert [line for line in lines if not line.startswith("3 tasks  ")] == [
        "medmcqa  1 of 1 answered, 0 failed, 0:00:00"
    ]


def test_where_a_run_was_stopped_is_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress(wanted=True, every_s=NEVER_S, clock=Clock()) as progress:
        progress.begin("answering", {"medqa@1": 36, "medmcqa@1": 36})
        progress.done("answering", "medqa@1", failed=False)
        progress.begin("judging", {"medqa@1": 36})

    assert capsys.readouterr().err.endswith("2 tasks  1 of 72 answered, 0 failed, 0:00:00\n")


def test_a_log_that_cannot_be_written_does_not_stop_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = io.StringIO()
    with shown_progress(wanted=True, every_s=NEVER_S) as progress:
        monkeypatch.setattr(sys, "stderr", closed)
        closed.close()
        progress.begin("answering", {"medqa@1": 1})
        progress.done("answering", "medqa@1", failed=False)


def test_nothing_is_told_unless_wanted_or_where_there_is_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with shown_progress(wanted=False, every_s=0.001) as progress:
        progress.begin("answering", {"medqa@1": 1})
        progress.done("answering", "medqa@1", failed=False)
    with shown_progress(wanted=True, every_s=NEVER_S) as progress:
        progress.begin("judging", {})

    assert capsys.readouterr() == ("", "")


def test_an_evaluation_writes_whole_lines_to_stderr_and_results_alone_to_stdout(
    evaluate: Run, serve: Serve
) -> None:
    argv = [*candidate(serve(lambda _: "A")), *judge(serve(strict)), "--limit", "3"]

    _, out, err = evaluate(*argv, "--tasks", "medmcqa,rad_vqa")
    _, again, resumed = evaluate(*argv, "--tasks", "medmcqa,rad_vqa")

    lines = [line for line in err.splitlines() if not line.startswith("report: ")]
    assert all(LINE.fullmatch(line) for line in lines)
    assert sorted(re.sub(", 0:.*", "", line) for line in lines) == [
        "2 tasks  0 of 6 answered, 0 failed",
        "2 tasks  0 of 6 judged, 0 failed",
        "medmcqa  3 of 3 answered, 0 failed",
        "medmcqa  3 of 3 judged, 0 failed",
        "rad_vqa  3 of 3 answered, 0 failed",
        "rad_vqa  3 of 3 judged, 0 failed",
    ]
    assert not {"\r", "\x1b"} & set(err)
    assert out == again
    assert " of 3 " not in out + resumed


def test_a_call_from_python_is_silent_unless_asked(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {}
    for progress in (False, True):
        out = tmp_path_factory.mktemp("out")
        medix_eval.evaluate(
            model="phantom",
            tasks="phantom_open",
            protocol="rules",
            limit=1,
            out=out,
            progress=progress,
        )
        said[progress] = capsys.readouterr()

    assert said[False] == ("", "")
    assert said[True].out == ""
    assert "phantom_open  1 of 1 answered, 0 failed" in said[True].err
