"""A verdict cache that is damaged, foreign or edited costs calls: never a run, never a score."""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_judges import Scripted, a_judge

from medix_eval.errors import ConfigError
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.judge import Dialogue, Grade, Judge
from medix_eval.judging.protocol import DialogueJudge, load_protocol
from medix_eval.records import CompletionRecord, Kind, Vote

RECORD = CompletionRecord(
    task="t@1", sample_id="s1", row=0, kind=Kind.OPEN, prompt="Which organ?", reference="Liver",
    completion="The liver",
)  # fmt: skip
REPORT = RECORD.model_copy(update={"kind": Kind.REPORT})
YES, NO = '{"score": 1}', '{"score": 0}'


def grade(judge: Judge | Dialogue, record: CompletionRecord = RECORD) -> Grade:
    return asyncio.run(judge.grade(record, answer="The liver"))


def filled(path: Path, *, num: int = 0, restricted: bool = False, reply: str = YES) -> None:
    """Keep the votes of one answer, and some others."""
    with VerdictCache.at(path) as cache:
        votes = grade(a_judge(Scripted(reply), cache=cache)).votes
        cache.keep(votes, restricted=restricted)
        more = [
            Vote(judge="j", prompt="p", key=f"{at:064}", points=1.0, reply=YES * 20)
            for at in range(num)
        ]
        cache.keep(more, restricted=False)


def again(path: Path, protocol: str = "medix", record: CompletionRecord = RECORD) -> list[str]:
    """Grade with this cache and a judge that says NO, twice; return the prompts asked each time."""
    asked = []
    for _ in range(2):
        silent = Scripted(NO if protocol == "medix" else "NO")
        with VerdictCache.at(path) as cache:
            found = grade(a_judge(silent, cache=cache, protocol=protocol), record)
            assert found.score == 0.0
            cache.keep(found.votes, restricted=False)
        asked.append(len(silent.prompts))
    assert asked[1] == 0, "what was asked again is kept"
    return [str(number) for number in asked]


@pytest.mark.parametrize(
    "change",
    [
        "points = 99",
        "points = 'abc'",
        "points = NULL",
        "points = 1e308",
        "points = 9e999",
        "points = -1",
        "points = 0.5",
        "points = x'00ff'",
        "points = 0",  # which its reply does not say
        "reply = 12",
        "reply = x'ff'",
        "reply = 'no verdict'",
        "reply = CAST(x'ff' AS TEXT)",  # not UTF-8
        """reply = '{"score": 0}'""",
    ],
)
def test_a_kept_vote_that_its_reply_does_not_say_is_asked_again(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "verdicts.sqlite"
    filled(path)
    with sqlite3.connect(path) as file:
        file.execute(f"UPDATE votes SET {change}")  # noqa: S608

    assert again(path)[0] == "2"


@pytest.mark.parametrize("change", ["points = 99", "points = 0.5", "points = 9e999"])
def test_a_vote_that_is_kept_without_words_has_points_of_its_scale(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "verdicts.sqlite"
    filled(path, restricted=True)
    with sqlite3.connect(path) as file:
        file.execute(f"UPDATE votes SET {change}")  # noqa: S608

    assert again(path)[0] == "2"


@pytest.mark.parametrize("labels", ["'melanoma'", "'same YES'", "7", "x'00'"])
def test_labels_of_another_rubric_are_no_vote(tmp_path: Path, labels: str) -> None:
    path = tmp_path / "verdicts.sqlite"
    filled(path, restricted=True)
    with sqlite3.connect(path) as file:
        file.execute(f"UPDATE labels SET labels = {labels}")  # noqa: S608

    assert again(path)[0] == "2"


def test_a_refusal_with_points_is_no_vote(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.sqlite"
    filled(path, restricted=True)
    with sqlite3.connect(path) as file:
        file.execute("INSERT INTO refusals SELECT key FROM votes")

    assert again(path)[0] == "2"


def test_an_honest_vote_is_not_asked_again(tmp_path: Path) -> None:
    for restricted in (False, True):
        path = tmp_path / f"{restricted}.sqlite"
        filled(path, restricted=restricted, reply=NO)

        assert again(path)[0] == "0"


SCHEMAS = [
    "CREATE TABLE votes (key TEXT, points REAL)",
    "CREATE TABLE votes (id INTEGER, text TEXT, score REAL, who TEXT)",
    "CREATE TABLE votes (key TEXT PRIMARY KEY, points REAL, reply TEXT, more TEXT)",
    "CREATE VIEW votes AS SELECT 'a' AS key, 1.0 AS points, 'b' AS reply",
    "CREATE VIEW labels AS SELECT 'a' AS key",
    "CREATE TABLE refusals (who TEXT)",
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_cache_of_another_schema_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, schema: str
) -> None:
    path = tmp_path / "verdicts.sqlite"
    with sqlite3.connect(path) as file:
        file.executescript(schema)

    with VerdictCache.at(path) as cache:
        for _ in range(2):
            cache.keep(grade(a_judge(Scripted(YES), cache=cache)).votes, restricted=False)
        votes = grade(a_judge(Scripted(YES), cache=cache)).votes
        known = [cache.find(vote.key) for vote in votes]

    assert [one and one["points"] for one in known] == [1.0, 1.0]


def spoil(path: Path, seed: int) -> None:
    """Overwrite a part of the file behind its header, as a bad disk does."""
    data = bytearray(path.read_bytes())
    drawn = random.Random(seed)  # noqa: S311
    for _ in range(1 + seed % 4):
        at = drawn.randrange(100, len(data) - 600)
        data[at : at + 512] = drawn.randbytes(512)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_in_a_cache_end_no_run_and_make_no_score(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "verdicts.sqlite"
    filled(path, num=300)
    spoil(path, seed)

    for _ in range(2):
        with VerdictCache.at(path) as cache:
            for at in range(300):
                known = cache.find(f"{at:064}", lambda known: known["points"] == 1.0)
                assert known is None or known["points"] == 1.0
            found = grade(a_judge(Scripted(YES), cache=cache))
            cache.keep(found.votes, restricted=False)
        assert found.score == 1.0


def test_what_is_spoilt_while_it_is_used_is_set_aside_with_its_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "verdicts.sqlite"
    filled(path, num=3000)
    with VerdictCache.at(path) as cache:
        assert cache.find(f"{0:064}")
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(100)
            file.write(random.Random(0).randbytes(size - 100))  # noqa: S311
        found = [
            cache.find(f"{at:064}", lambda known: known["points"] == 1.0) for at in range(3000)
        ]
        cache.keep([Vote(judge="j", prompt="p", key="new", points=1.0)], restricted=False)
        assert cache.find("new")

    assert None in found
    assert (tmp_path / "verdicts.corrupt").stat().st_size == size
    assert sum("renamed to" in line for line in caplog.messages) == 1
    with sqlite3.connect(path) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.execute("SELECT key FROM votes").fetchall() == [("new",)]


def test_two_that_find_one_cache_damaged_begin_one_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "verdicts.sqlite"
    filled(path)
    with VerdictCache.at(path) as one, VerdictCache.at(path) as two:
        with sqlite3.connect(path) as file:
            file.execute("DROP TABLE votes")
        for number, cache in enumerate((one, two)):
            assert cache.find("a") is None
            cache.keep([Vote(judge="j", prompt="p", key=f"{number}", points=1.0)], restricted=False)

        assert all(cache.find(key) for cache in (one, two) for key in "01")
    assert sum("renamed to" in line for line in caplog.messages) == 1


OTHER = """
import sys
from pathlib import Path
from medix_eval.judging.cache import VerdictCache
from medix_eval.records import Vote
with VerdictCache.at(Path(sys.argv[1])) as cache:
    for number, line in enumerate(sys.stdin):
        vote = Vote(judge="j", prompt="p", key=f"other{number}", points=1.0)
        cache.keep([vote], restricted=False)
        print(cache.find(f"other{number}")["points"], flush=True)
"""


@pytest.mark.slow
def test_another_process_goes_on_with_a_cache_that_was_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.sqlite"
    filled(path, num=10)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as other:  # fmt: skip
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write("\n")
        assert other.stdout.readline() == "1.0\n"
        with VerdictCache.at(path) as cache:
            cache.connection.execute("PRAGMA writable_schema = ON")
            cache._done(lambda file: file.execute("SELECT nothing FROM votes"))  # noqa: SLF001
            for number in range(50):
                vote = Vote(judge="j", prompt="p", key=f"{number}", points=1.0)
                cache.keep([vote], restricted=False)
            other.stdin.write("\n")
            assert other.stdout.readline() == "1.0\n"
            other.stdin.close()
            assert other.wait() == 0
            assert all(cache.find(f"{number}") for number in range(50))

    with VerdictCache.at(path) as cache:
        assert all(cache.find(f"{number}") for number in range(50))
        assert cache.find("other0") is None
    with sqlite3.connect(tmp_path / "verdicts.corrupt") as aside:
        assert aside.execute("SELECT count(*) FROM votes WHERE key LIKE 'other%'").fetchone() == (
            2,
        )


def test_a_cache_that_cannot_be_begun_anew_is_done_without(tmp_path: Path) -> None:
    path = tmp_path / "in" / "verdicts.sqlite"
    filled(path)
    with VerdictCache.at(path) as cache:
        cache.connection.execute("DROP TABLE votes")
        path.parent.rename(tmp_path / "gone")
        path.parent.write_bytes(b"")

        assert cache.find("a") is None
        cache.keep([Vote(judge="j", prompt="p", key="a", points=1.0)], restricted=False)
        assert cache.find("a")


def test_a_locked_cache_is_waited_for_and_then_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "verdicts.sqlite"
    filled(path)
    with VerdictCache.at(path) as cache, sqlite3.connect(path) as other:
        cache.connection.execute("PRAGMA busy_timeout = 10")
        other.execute("BEGIN IMMEDIATE")
        cache.keep([Vote(judge="j", prompt="p", key="a", points=1.0)], restricted=False)

        assert not (tmp_path / "verdicts.corrupt").exists()
        assert cache.find("a") is None
    assert caplog.messages == ["the verdict cache was not used: database is locked"]


def test_a_cache_in_a_place_that_is_no_folder_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"the verdict cache .* cannot be used") as error:
        VerdictCache.at(tmp_path / "file" / "verdicts.sqlite")

    assert error.value.hint == "--no-cache runs without it"


COMPAT = load_protocol("medix-compat")


@pytest.mark.parametrize(
    ("record", "change", "asked"),
    [
        (RECORD, "points = 0", 3),
        (RECORD, "points = 1e308", 3),
        (RECORD, "reply = NULL, points = 2", 3),
        (RECORD, "reply = 'nothing'", 3),
        (REPORT, "points = 9e999", 3),
        (REPORT, "reply = NULL, points = 1e308", 3),
        (RECORD, "points = points", 0),
        (REPORT, "points = points", 0),
        (REPORT, "reply = NULL", 0),
    ],
)
def test_a_dialogue_takes_from_the_cache_only_what_its_replies_say(
    tmp_path: Path, record: CompletionRecord, change: str, asked: int
) -> None:
    assert isinstance(COMPAT.judge, DialogueJudge)
    path, scripted = tmp_path / "verdicts.sqlite", Scripted(YES)

    def graded() -> Grade:
        assert isinstance(COMPAT.judge, DialogueJudge)
        with VerdictCache.at(path) as cache:
            judge = Dialogue(
                name="j", identity={}, ask=scripted.ask, spec=COMPAT.judge, texts=COMPAT.texts,
                cache=cache,
            )  # fmt: skip
            found = grade(judge, record)
            cache.keep(found.votes, restricted=False)
            return found

    first = graded()
    with sqlite3.connect(path) as file:
        file.execute(f"UPDATE votes SET {change}")  # noqa: S608
    num = len(scripted.prompts)
    second = graded()

    assert (second.score, len(scripted.prompts) - num) == (first.score, asked)
    assert second.score is not None
    assert math.isfinite(second.score)
