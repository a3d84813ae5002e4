"""`medix-compat` against the published scoring, as an oracle that has not seen this code has it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import published_scoring
import pytest

from medix_eval.errors import ModelError, RequestFailed
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.judge import Dialogue, Grade, Judge
from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.protocol import DialogueJudge, LLMJudge, load_protocol
from medix_eval.models import openai_server, transformers_model
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.records import CompletionRecord, Kind, Outcome
from medix_eval.results.scoring import mean
from medix_eval.storage.digests import digest

COMPAT, MEDIX = load_protocol("medix-compat"), load_protocol("medix")


class Replies:
    """A judge's replies in order; keeps what it was asked."""

    def __init__(self, replies: Sequence[str | ModelError | None]) -> None:
        self.say(replies)

    def say(self, replies: Sequence[str | ModelError | None]) -> None:
        self.replies = list(replies)
        self.prompts: list[Prompt] = []

    async def ask(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.prompts.append(prompt)
        reply = self.replies[len(self.prompts) - 1]
        if isinstance(reply, ModelError):
            raise reply
        return Completion(text=reply)


def a_record(kind: Kind = Kind.OPEN, number: int = 0) -> CompletionRecord:
    return CompletionRecord(
        task="t@1",
        sample_id=f"s{number}",
        row=number,
        kind=kind,
        prompt="<image>Which organ?",
        reference="Liver",
        completion="The liver",
    )


def compat(replies: Replies, known: VerdictCache | None = None) -> Dialogue:
    assert isinstance(COMPAT.judge, DialogueJudge)
    return Dialogue(
        name="j",
        identity={"id": "j"},
        ask=replies.ask,
        spec=COMPAT.judge,
        texts=COMPAT.texts,
        cache=known,
    )


def medix(replies: Replies) -> Judge:
    """The default protocol with one try a vote, so that three replies are three votes."""
    assert isinstance(MEDIX.judge, LLMJudge)
    return Judge(
        name="j",
        identity={"id": "j"},
        ask=replies.ask,
        spec=MEDIX.judge.model_copy(update={"tries": 1}),
        texts=MEDIX.texts,
        cache=None,
    )


def grade(judge: Dialogue | Judge, kind: Kind = Kind.OPEN) -> Grade:
    return asyncio.run(judge.grade(a_record(kind), answer="The liver"))


@dataclass(frozen=True)
class Case:
    """Three raw replies, and the defects of the published reading that they touch."""

    task: str
    kind: Kind
    replies: tuple[str | None, ...]
    defects: frozenset[str]


CLEAN = [
    '{{"score": {n}}}',
    '```json\n{{"score": {n}}}\n```',
    '<think>It may be {{"score": 9}}.</think>\n\n{{"score": {n}}}',
    'Verdict: {{"score": {n}, "reason": "same organ"}} as asked.',
]
DEFECTS: dict[str, list[str | None]] = {
    "string": ['{"score": "1"}', '{"score": "0"}', '{"score": "5"}'],
    "type": ['{"score": true}', '{"score": 1.0}', '{"score": 3.5}', '{"score": null}'],
    "range": ['{"score": 7}', '{"score": -1}', '{"score": 100}'],
    "unparsable": [
        "",
        None,
        "correct",
        '{"score": 1',
        '{"verdict": 1}',
        "[1]",
        '{"score": 0} or {"score": 1}',
        '{see below} {"score": 1}',
    ],
}


def cases(num: int) -> list[Case]:
    """Sequences of raw replies over the published tasks: most clean, some with every defect."""
    random_ = random.Random(0)  # noqa: S311 (no secret)
    tasks = [*published_scoring.LLM_TASKS, *published_scoring.VLM_TASKS]
    found = []
    for number in range(num):
        task = tasks[number % len(tasks)]
        kind = Kind.REPORT if published_scoring.is_report(task) else Kind.OPEN
        replies: list[str | None] = []
        defects = set()
        spoilt = random_.random() < 0.5
        for _ in range(3):
            if spoilt and random_.random() < 0.5:
                defect = random_.choice(list(DEFECTS))
                defects.add(defect)
                replies.append(random_.choice(DEFECTS[defect]))
            else:
                n = random_.randint(0, 5 if kind is Kind.REPORT else 1)
                replies.append(random_.choice(CLEAN).format(n=n))
        found.append(Case(task, kind, tuple(replies), frozenset(defects)))
    return found


CASES = cases(5_000)


def published(case: Case) -> float | None:
    """What the oracle says, as a share of the points."""
    try:
        score = published_scoring.sample_score(case.replies, sample_id=f"{case.task}_7")
    except published_scoring.NoVerdict:
        return None
    return float(score) / (5 if case.kind is Kind.REPORT else 1)


@cache
def grades(build: Callable[[Replies], Dialogue | Judge]) -> list[float | None]:
    """What one judge of ours makes of every case."""

    async def all_of_them() -> list[float | None]:
        found = []
        for case in CASES:
            replies.say(case.replies)
            found.append((await judge.grade(a_record(case.kind), answer="x")).score)
        return found

    replies = Replies([])
    judge = build(replies)
    return asyncio.run(all_of_them())


def test_compat_scores_each_of_5000_dialogues_as_published() -> None:
    ours = grades(compat)

    theirs = [published(case) for case in CASES]
    assert len(CASES) == 5_000
    assert [score is None for score in ours] == [score is None for score in theirs]
    assert ours == [pytest.approx(score, abs=1e-12) if score else score for score in theirs]
    assert {name for case in CASES for name in case.defects} == set(DEFECTS)
    assert max(score for score in theirs if score is not None) > 1


def test_compat_averages_tasks_and_overall_as_published() -> None:
    ours = grades(compat)

    tasks = list(dict.fromkeys(case.task for case in CASES))
    scored = {
        task: [
            score
            for score, case in zip(ours, CASES, strict=True)
            if case.task == task and score is not None
        ]
        for task in tasks
    }
    lines = [
        (case.task, score * (5 if case.kind is Kind.REPORT else 1))
        for case in CASES
        if (score := published(case)) is not None
    ]
    theirs = published_scoring.run_scores(lines, selected=tasks)
    means = {task: mean(scores) for task, scores in scored.items()}
    overall = mean(score for score in means.values() if score is not None)
    assert means == {task: pytest.approx(theirs[task], abs=1e-12) for task in tasks}
    assert overall is not None
    assert dict(published_scoring.score_table(theirs))["Overall"] == pytest.approx(100 * overall)


def test_medix_differs_from_the_published_scoring_exactly_in_its_defects() -> None:
    ours = grades(medix)

    differ: dict[frozenset[str], int] = {}
    for case, score in zip(CASES, ours, strict=True):
        theirs = published(case)
        same = score is None if theirs is None else score == pytest.approx(theirs, abs=1e-12)
        assert case.defects or same, case
        if not same:
            differ[case.defects] = differ.get(case.defects, 0) + 1
    alone = {name for defects in differ if len(defects) == 1 for name in defects}
    assert alone == set(DEFECTS)


@pytest.mark.parametrize(
    ("replies", "published_says", "medix_says"),
    [
        pytest.param(['{"score": "1"}'] * 3, 0.0, 1.0, id="a-number-as-text-is-wrong"),
        pytest.param(['{"score": true}'] * 3, 1.0, None, id="true-is-one"),
        pytest.param(['{"score": 7}'] * 3, 0.0, None, id="off-the-scale-is-wrong"),
        pytest.param(
            ['{"score": 1}', '{"score": 1}', "hm"], None, 1.0, id="one-bad-reply-loses-the-sample"
        ),
        pytest.param(
            ['{"score": 0} {"score": 1}', '{"score": 1}', '{"score": 1}'],
            None,
            1.0,
            id="two-objects-are-no-json",
        ),
    ],
)
def test_where_medix_and_the_published_scoring_part(
    replies: list[str], published_says: float | None, medix_says: float | None
) -> None:
    assert grade(compat(Replies(replies))).score == published_says
    assert grade(medix(Replies(replies))).score == medix_says


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1e999"])
def test_a_score_that_is_no_number_is_no_verdict_and_never_nan(score: str) -> None:
    replies = Replies([f'{{"score": {score}}}'] * 3)

    found = grade(compat(replies), Kind.REPORT)

    assert found.score is None
    assert len(found.votes) == 1


def test_the_dialogue_grows_by_two_messages_a_turn_and_medix_holds_none() -> None:
    asked, single = Replies(['{"score": 1}'] * 3), Replies(['{"score": 1}'] * 3)

    grade(compat(asked))
    grade(medix(single))

    again = COMPAT.texts["prompts/dialogue_again.jinja"].strip()
    expected = [
        [message["content"].strip() for message in messages]
        for number in range(3)
        if (
            messages := published_scoring.dialogue(
                asked.prompts[0].text, ['{"score": 1}'] * number, reconsider=again
            )
        )
    ]
    assert [
        [text.strip() for turn in prompt.before for text in turn] + [prompt.text.strip()]
        for prompt in asked.prompts
    ] == expected
    assert [len(prompt.before) for prompt in single.prompts] == [0, 0]


def test_the_first_unreadable_reply_ends_the_dialogue() -> None:
    replies = Replies(["hm", '{"score": 1}', '{"score": 1}'])

    found = grade(compat(replies))

    assert found.score is None
    assert len(replies.prompts) == 1
    assert found.votes[0].reply == "hm"


def test_a_request_that_failed_is_a_failed_vote() -> None:
    found = grade(compat(Replies(['{"score": 1}', RequestFailed("gone")])))

    assert found.score is None
    assert [vote.failure and vote.failure.error for vote in found.votes] == [None, "RequestFailed"]


def test_a_whole_dialogue_comes_from_the_cache_and_half_of_one_does_not(tmp_path: Path) -> None:
    with VerdictCache.at(tmp_path / "verdicts.sqlite") as known:
        half = grade(compat(Replies(['{"score": 1}', "hm"]), known))
        known.keep(half.votes, restricted=False)
        whole = Replies(['{"score": 0}'] * 3)
        first = grade(compat(whole, known))
        known.keep(first.votes, restricted=False)
        silent = Replies([])
        second = grade(compat(silent, known))

    assert len(whole.prompts) == 3
    assert silent.prompts == []
    assert all(vote.cached for vote in second.votes)


@pytest.mark.parametrize(
    ("completion", "shown"),
    [
        ("<thinking>B?</thinking><answer>A</answer>", "<answer>A</answer>"),
        ("<think>B? or A", "<think>B? or A"),
        ("", ""),
    ],
)
def test_what_is_judged_is_what_the_published_code_shows(completion: str, shown: str) -> None:
    replies = Replies(['{"score": 1}'] * 3)
    record = a_record().model_copy(update={"completion": completion, "finish_reason": "length"})

    verdict = asyncio.run(verdict_of(record, protocol=COMPAT, grader=compat(replies)))

    assert verdict.outcome is Outcome.CORRECT
    assert verdict.answer == shown == published_scoring.after_thinking(completion)
    assert f"\n{shown}\n" in replies.prompts[0].text


def test_rules_beside_the_published_judge_read_the_answer_without_its_tags() -> None:
    record = a_record(Kind.CLOSED).model_copy(
        update={"reference": "yes", "completion": "<thinking>?</thinking><answer>Yes</answer>"}
    )

    grader = compat(Replies(['{"score": 0}'] * 3))

    verdict = asyncio.run(verdict_of(record, protocol=COMPAT, grader=grader))

    assert verdict.outcome is Outcome.WRONG
    assert verdict.rule is not None
    assert verdict.rule.score == 1.0


def test_a_prompt_of_the_users_own_is_used_and_moves_the_digest(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text("Q {{ question }} R {{ reference }} A {{ answer }}")

    protocol = load_protocol("medix-compat", overrides=[f"judge.prompt_file={mine}"])

    assert protocol.texts[str(mine)] == mine.read_text()
    assert protocol.digest != COMPAT.digest
    assert digest(protocol.generation_settings()) == digest(COMPAT.generation_settings())


def test_every_adapter_sends_the_turns_before() -> None:
    prompt = Prompt(text="again", before=(("first", "reply"),))
    plain = [("user", "first"), ("assistant", "reply"), ("user", "again")]

    sent: list[Any] = [
        openai_server._messages(prompt),  # noqa: SLF001
        transformers_model._messages(prompt, takes_images=False),  # noqa: SLF001
    ]
    parts = transformers_model._messages(prompt, takes_images=True)  # noqa: SLF001

    assert [[(one["role"], one["content"]) for one in messages] for messages in sent] == [plain] * 2
    assert [(one["role"], one["content"][0]["text"]) for one in parts] == plain
