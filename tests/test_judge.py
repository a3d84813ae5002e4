from __future__ import annotations

import asyncio
import itertools
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_judges import Scripted, a_judge

from medix_eval.errors import RequestFailed, RequestRefused
from medix_eval.exchange.recorded import problem_of_replies
from medix_eval.judging.cache import VerdictCache, remembered
from medix_eval.judging.judge import REMINDER, Grade, Judge, decide, grader_for
from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.prompts import fence
from medix_eval.judging.protocol import Rubric, load_protocol
from medix_eval.models.chat import Completion
from medix_eval.records import CompletionRecord, Kind, Vote

RECORD = CompletionRecord(
    task="t@1",
    sample_id="s1",
    row=0,
    kind=Kind.OPEN,
    prompt="<image>Which organ?",
    reference="Liver",
    completion="The liver",
)
REPORT = RECORD.model_copy(update={"kind": Kind.REPORT})
NO, YES, BROKEN = '{"score": 0}', '{"score": 1}', "no idea"


def grade(judge: Judge, record: CompletionRecord = RECORD, answer: str = "The liver") -> Grade:
    return asyncio.run(judge.grade(record, answer=answer))


@pytest.mark.parametrize("votes", list(itertools.product([NO, YES, BROKEN], repeat=3)))
def test_stopping_early_never_changes_the_majority(votes: tuple[str, str, str]) -> None:
    points = {NO: 0.0, YES: 1.0, BROKEN: None}
    everyone = [points[vote] for vote in votes]
    majority = next((side for side in (0.0, 1.0) if everyone.count(side) >= 2), None)
    scripted = Scripted(*votes)

    assert grade(a_judge(scripted)).score == majority
    assert len(scripted.prompts) == (2 if everyone[0] == everyone[1] else 3)


def test_the_three_votes_are_three_different_prompts() -> None:
    scripted = Scripted(YES, NO, YES)

    grade(a_judge(scripted))

    assert len({prompt.text for prompt in scripted.prompts}) == 3
    orders = [p.text.index("Liver") < p.text.index("The liver") for p in scripted.prompts]
    assert len(set(orders)) == 2


def test_a_report_needs_every_vote_and_gets_their_mean() -> None:
    scripted = Scripted('{"score": 5}', '{"score": 2}', '{"score": 2}')

    assert grade(a_judge(scripted), REPORT).score == pytest.approx(0.6)


def test_a_report_with_a_failed_vote_has_no_score() -> None:
    assert grade(a_judge(Scripted('{"score": 5}', "?", '{"score": 5}')), REPORT).score is None


def test_an_unreadable_reply_is_asked_again_and_the_tries_are_bounded() -> None:
    scripted = Scripted(BROKEN)

    found = grade(a_judge(scripted, tries=2))

    assert found.score is None
    assert len(scripted.prompts) == 2 * 2
    assert [vote.calls for vote in found.votes] == [2, 2]
    assert all(vote.failure and vote.reply == BROKEN for vote in found.votes)


@pytest.mark.parametrize("protocol", ["medix", "reward"])
def test_a_reply_that_was_cut_by_its_limit_is_never_read(protocol: str) -> None:
    said = YES if protocol == "medix" else "YES"
    scripted = Scripted(Completion(text=said, finish_reason="length"))

    found = grade(a_judge(scripted, protocol=protocol))

    (vote, *_) = found.votes
    assert found.score is None
    assert vote.reply == said
    assert vote.failure is not None
    assert "was cut by its limit" in vote.failure.message
    assert "judge.sampling.max_tokens" in vote.failure.message


@pytest.mark.parametrize(
    ("protocol", "good", "form"),
    [
        ("medix", YES, '{"score": N} with a whole number N from 0 to 1'),
        ("reward", "YES", "it must be YES or NO"),
    ],
)
def test_a_second_try_is_asked_in_other_words_and_says_the_form(
    protocol: str, good: str, form: str
) -> None:
    overrides = ["judge.question.prompts=[prompts/question_1.jinja]"] * (protocol == "medix")
    scripted = Scripted(BROKEN, good)

    found = grade(a_judge(scripted, tries=2, protocol=protocol, overrides=overrides))

    first, second = [prompt.text for prompt in scripted.prompts]
    assert found.score == 1.0
    assert second.startswith(first)
    assert form in second.removeprefix(first)
    assert form not in first
    assert len(set(scripted.seeds)) == 2


@given(votes=st.lists(st.sampled_from([NO, YES, BROKEN]), min_size=5, max_size=5))
def test_no_vote_is_asked_that_can_bring_no_majority(votes: list[str]) -> None:
    scripted = Scripted(*votes)
    repeated = ["judge.question.repeats=5", "judge.sampling.temperature=1"]
    one = ["judge.question.prompts=[prompts/question_1.jinja]", *repeated]

    found = grade(a_judge(scripted, overrides=one))

    decided = {side: votes.count(side) >= 3 for side in (NO, YES)}
    assert found.score == (0.0 if decided[NO] else 1.0 if decided[YES] else None)
    before = votes[: len(found.votes) - 1]
    assert len(before) < 3 or max(before.count(NO), before.count(YES)) + 5 - len(before) >= 3


def test_a_request_that_failed_for_good_is_a_failed_vote_and_not_asked_again() -> None:
    scripted = Scripted(RequestFailed("overloaded"))

    found = grade(a_judge(scripted, tries=3))

    assert found.score is None
    assert len(scripted.prompts) == 2
    assert {vote.failure.error for vote in found.votes if vote.failure} == {"RequestFailed"}


def test_a_server_without_json_schema_is_asked_in_words_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scripted = Scripted(RequestRefused("response_format is not supported", is_schema=True), YES)

    assert grade(a_judge(scripted)).score == 1.0
    assert [prompt.schema is None for prompt in scripted.prompts] == [False, True, True]
    assert caplog.messages == ["judge scripted follows no JSON schema: refused"]


def test_a_second_run_takes_its_votes_from_the_cache(tmp_path: Path) -> None:
    with VerdictCache.at(tmp_path / "verdicts.sqlite") as cache:
        first = grade(a_judge(Scripted(YES), cache=cache))
        cache.keep(first.votes, restricted=False)
        silent = Scripted(RequestFailed("must not be asked"))
        again = grade(a_judge(silent, cache=cache))

    assert again.score == 1.0
    assert all(vote.cached and vote.calls == 0 and vote.reply == YES for vote in again.votes)


@pytest.mark.parametrize(
    "change",
    [{"reference": "Spleen"}, {"prompt": "Which side?"}],
    ids=["reference", "question"],
)
def test_the_cache_never_answers_another_question(tmp_path: Path, change: dict[str, str]) -> None:
    with VerdictCache.at(tmp_path / "verdicts.sqlite") as cache:
        cache.keep(grade(a_judge(Scripted(YES), cache=cache)).votes, restricted=False)
        other = grade(a_judge(Scripted(NO), cache=cache), RECORD.model_copy(update=change))

    assert other.score == 0.0


def test_the_cache_keeps_no_words_of_restricted_data(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.sqlite"
    with VerdictCache.at(path) as cache:
        secret = '{"score": 1, "why": "patient Jane Doe"}'
        cache.keep(grade(a_judge(Scripted(secret), cache=cache)).votes, restricted=True)

    assert b"Jane" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


def test_a_vote_that_two_samples_wait_for_is_counted_once(tmp_path: Path) -> None:
    asked = Vote(judge="j", prompt="p", key="k")
    spent = {"calls": 2, "seconds": 0.5, "tokens": 30, "thinking_tokens": 20}

    async def both() -> list[Vote]:
        async def ask() -> Vote:
            await asyncio.sleep(0)
            return asked.model_copy(update={"points": 1.0, **spent})

        with VerdictCache.at(tmp_path / "verdicts.sqlite") as cache:
            return await asyncio.gather(*(remembered(cache, asked, ask) for _ in range(2)))

    votes = asyncio.run(both())

    assert [vote.points for vote in votes] == [1.0, 1.0]
    assert {name: sum(getattr(vote, name) for vote in votes) for name in spent} == spent


def test_a_corrupt_cache_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "verdicts.sqlite"
    path.write_bytes(b"this is no database" * 100)

    with VerdictCache.at(path) as cache:
        assert cache.find("key") is None

    assert path.with_suffix(".corrupt").exists()
    assert "verdict cache renamed to" in caplog.text


def vote_of(key: str) -> Vote:
    return Vote(judge="j", prompt="p", key=key, points=1.0, reply=YES * 100, calls=1)


def test_two_processes_share_one_cache(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.sqlite"
    with VerdictCache.at(path) as one, VerdictCache.at(path) as two:
        one.keep([vote_of("a")], restricted=False)
        two.keep([vote_of("b"), vote_of("a")], restricted=False)

        found = {"points": 1.0, "reply": YES * 100, "is_refusal": False}
        found |= {"labels": (), "cached": True}
        assert one.find("b") == two.find("a") == found


def test_a_cache_that_grew_too_large_lets_its_oldest_votes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "verdicts.sqlite"
    with VerdictCache.at(path) as cache:
        cache.keep([vote_of(f"{number:03}") for number in range(300)], restricted=False)
    before = path.stat().st_size
    monkeypatch.setattr("medix_eval.judging.cache._LARGEST_BYTES", before - 1)

    with VerdictCache.at(path) as cache:
        kept = [number for number in range(300) if cache.find(f"{number:03}")]

    assert kept == list(range(101, 300))
    assert path.stat().st_size < before


@given(answer=st.text())
def test_no_answer_holds_its_own_fence(answer: str) -> None:
    assert fence("s1", answer) not in answer


@given(answer=st.text(alphabet=st.characters(codec="utf-8")))
def test_the_answer_stands_in_the_prompt_as_it_is(answer: str) -> None:
    scripted = Scripted(YES)

    grade(a_judge(scripted), answer=answer)

    mark = fence("s1", answer)
    assert all(f"{mark}\n{answer}\n{mark}" in prompt.text for prompt in scripted.prompts)


def test_a_template_in_an_answer_stays_text() -> None:
    scripted = Scripted(YES)

    grade(a_judge(scripted), answer="{{ reference }} {% raw %}")

    assert all("{{ reference }} {% raw %}" in prompt.text for prompt in scripted.prompts)


def test_repeats_of_one_prompt_are_votes_with_seeds_of_their_own(tmp_path: Path) -> None:
    changes = ["judge.question.repeats=3", "judge.sampling.temperature=0.7"]
    changes += ["judge.question.prompts=[prompts/question_1.jinja]", "judge.question.crossed=false"]
    scripted = Scripted(YES, NO, YES)

    with VerdictCache.at(tmp_path / "verdicts.sqlite") as cache:
        found = grade(a_judge(scripted, cache=cache, overrides=changes))

    assert found.score == 1.0
    assert [vote.prompt for vote in found.votes] == ["question_1", "question_1#2", "question_1#3"]
    assert len(set(scripted.seeds)) == len({vote.key for vote in found.votes}) == 3


def test_a_judge_may_reply_in_words() -> None:
    scripted = Scripted("No.")

    found = grade(a_judge(scripted, protocol="reward"))

    assert (found.score, [vote.points for vote in found.votes]) == (0.0, [0.0])
    assert scripted.prompts[0].schema is None


def test_a_judge_thinks_in_the_marks_that_its_protocol_adds() -> None:
    grades = []
    for overrides in ([], ["answer.thinking=[['((muse', 'muse))']]"]):
        loaded = load_protocol("medix", overrides=["judge.tries=1", *overrides])
        scripted = Scripted(f"((muse Perhaps {NO}? muse)) {YES}")
        asks, identities = {"scripted": scripted.ask}, {"scripted": {"id": "scripted"}}
        judge = grader_for(loaded, asks, identities=identities, cache=None)
        assert isinstance(judge, Judge)
        grades.append(grade(judge))

    assert [one.score for one in grades] == [None, 1.0]
    assert grades[0].votes[0].key != grades[1].votes[0].key


@given(points=st.lists(st.sampled_from([0.0, 1.0, None]), max_size=3))
def test_a_majority_is_of_all_prompts_not_of_the_valid_votes(points: list[float | None]) -> None:
    rubric = Rubric(scale=(0, 1), prompts=("a", "b", "c"), decide="majority")

    score = decide(points, rubric)

    assert score is None or points.count(score) >= 2


@pytest.mark.parametrize(
    "replies",
    [
        [Completion(text=YES, finish_reason="length"), YES, NO, YES],
        [BROKEN, YES, BROKEN, BROKEN, NO],
        [BROKEN, Completion(text=NO, finish_reason="length"), YES],
        [BROKEN, BROKEN],
    ],
)
def test_a_check_of_a_submission_follows_cut_replies_and_second_tries(
    replies: list[str | Completion],
) -> None:
    protocol = load_protocol("medix")
    grader = a_judge(Scripted(*replies), tries=2)
    record = RECORD.model_copy(update={"completion": "I take it for the liver, perhaps"})
    kept = asyncio.run(verdict_of(record, protocol=protocol, grader=grader))

    asked = problem_of_replies(protocol, record, kept, judges=["scripted"])

    assert any(vote.calls == 2 for vote in kept.votes)
    assert asyncio.run(asked) is None


REFUSED = '{"score": "refused"}'


@pytest.mark.parametrize(
    ("replies", "outcome"),
    [
        ((REFUSED, REFUSED), "refused"),
        ((YES, REFUSED, REFUSED), "refused"),
        ((REFUSED, YES, REFUSED), "refused"),
        ((REFUSED, NO), "wrong"),
        ((YES, REFUSED, NO), "wrong"),
        ((REFUSED, YES, YES), "correct"),
        ((REFUSED, BROKEN, REFUSED), "refused"),
        ((BROKEN, BROKEN, REFUSED), "judge_failed"),
    ],
)
def test_an_answer_is_refused_if_most_votes_say_so(replies: tuple[str, ...], outcome: str) -> None:
    judge = a_judge(Scripted(*replies))
    protocol = load_protocol("medix")
    record = RECORD.model_copy(update={"completion": "That I leave to your doctor."})

    found = asyncio.run(verdict_of(record, protocol=protocol, grader=judge))

    assert found.outcome == outcome
    assert found.reason == ("a refusal, says scripted" if outcome == "refused" else "")
    assert found.score == {"correct": 1.0, "judge_failed": None}.get(outcome, 0.0)
    votes = [one for one in found.votes if one.points is not None]
    assert [one.is_refusal for one in votes] == [
        reply == REFUSED for reply in replies if reply != BROKEN
    ][: len(votes)]


def test_a_report_that_most_votes_call_refused_is_refused_and_one_vote_counts_as_nothing() -> None:
    refused = grade(a_judge(Scripted(REFUSED, '{"score": 3}', REFUSED)), REPORT)
    read = grade(a_judge(Scripted(REFUSED, '{"score": 3}', '{"score": 3}')), REPORT)

    assert (refused.score, refused.refused_by) == (0.0, "scripted")
    assert read.score == pytest.approx(0.4)
    assert read.refused_by == ""


def test_a_refusal_is_still_one_when_its_vote_comes_from_the_cache(tmp_path: Path) -> None:
    with VerdictCache.at(tmp_path / "verdicts.sqlite") as cache:
        asked = grade(a_judge(Scripted(REFUSED), cache=cache))
        cache.keep(asked.votes, restricted=True)
        scripted = Scripted(BROKEN)

        again = grade(a_judge(scripted, cache=cache))

    assert again.refused_by == "scripted"
    assert scripted.prompts == []
    assert [vote.reply for vote in again.votes] == [None, None]


def test_a_cache_of_an_older_version_is_read_and_learns_of_refusals(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.sqlite"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE votes (key TEXT PRIMARY KEY, points REAL, reply TEXT)")
        old.execute("INSERT INTO votes VALUES ('old', 1.0, 'said')")
    old.close()
    said = {"points": 0.0, "is_refusal": True, "labels": ("undecided",)}
    refusal = vote_of("new").model_copy(update=said)

    for _ in range(2):  # once with the old table, once with the new one
        with VerdictCache.at(path) as cache:
            cache.keep([refusal], restricted=True)
    with VerdictCache.at(path) as cache:
        found = [cache.find(key) for key in ("old", "new")]

    known = [one and (one["reply"], one["is_refusal"], one["labels"]) for one in found]
    assert known == [("said", False, ()), (None, True, ("undecided",))]


def test_what_a_vote_says_goes_and_comes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "verdicts.sqlite"
    said = {"points": 0.0, "is_refusal": True, "labels": ("undecided",)}
    old = [vote_of(f"{number:03}").model_copy(update=said) for number in range(300)]
    now = vote_of("000").model_copy(update={"labels": ("same",)})
    with VerdictCache.at(path) as cache:
        cache.keep(old, restricted=False)
    monkeypatch.setattr("medix_eval.judging.cache._LARGEST_BYTES", path.stat().st_size - 1)

    with VerdictCache.at(path) as cache:
        cache.keep(
            [now, old[299].model_copy(update={"points": 1.0, "labels": ()})], restricted=True
        )
        first, last = cache.find("000"), cache.find("299")

    assert first == {
        "points": 1.0, "reply": None, "is_refusal": False, "labels": ("same",), "cached": True,
    }  # fmt: skip
    assert last is not None
    assert (last["points"], last["is_refusal"], last["labels"]) == (0.0, True, ("undecided",))


def test_a_reminder_offers_the_refusal_too() -> None:
    scripted = Scripted(BROKEN, YES)

    grade(a_judge(scripted, tries=2))

    (again,) = (one.text for one in scripted.prompts if REMINDER in one.text)
    assert REFUSED in again.rpartition(REMINDER)[2]


def test_a_refusal_is_judged_again_from_its_replies_as_it_was() -> None:
    protocol = load_protocol("medix")
    record = RECORD.model_copy(update={"completion": "That I leave to your doctor."})
    kept = asyncio.run(verdict_of(record, protocol=protocol, grader=a_judge(Scripted(REFUSED))))

    found = asyncio.run(problem_of_replies(protocol, record, kept, judges=["scripted"]))

    assert kept.outcome == "refused"
    assert found is None
