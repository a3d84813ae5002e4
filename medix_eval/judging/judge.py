"""Who grades answers: a judge by independent votes or by the published dialogue, or a jury of them.

Three turns of one dialogue at temperature 0 only invite a flip, so our votes are separate calls
that differ in order and wording. A vote that cannot bring or change the decision is not asked.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import typing
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import jinja2

from medix_eval.errors import ModelError, ReplyUnusable, RequestRefused
from medix_eval.judging import replies
from medix_eval.judging.cache import VerdictCache, remembered
from medix_eval.judging.prompts import Fields, compiled, fields_of, filled
from medix_eval.judging.protocol import (
    JUDGING_VERSION,
    Combining,
    DialogueJudge,
    LLMJudge,
    Protocol,
    Rubric,
    RulesOnly,
    prompt_name,
)
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.models.requests import thinking_switch
from medix_eval.records import SWAPPED, CompletionRecord, Failure, Kind, Vote
from medix_eval.rules.answers import Pairs, thinking_of
from medix_eval.storage.digests import digest

_LOG = logging.getLogger(__name__)
Ask = Callable[[Prompt, Sampling], Awaitable[Completion]]
SEEDS_APART = 1000
"""Between the seeds of two repeats, so that their retries never share a seed."""
REMINDER = "\n\nA program reads your reply. Without any other word or reason, it must be "
"""Goes on with the form, behind a prompt whose first reply could not be read."""
_FORM = '{{"score": N}} with a whole number N from {} to {}, or {{"score": "refused"}}.'
CUT = "the reply was cut by its limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """The result of the votes: a score in [0, 1], or None if too few were valid."""

    score: float | None
    votes: tuple[Vote, ...]
    refused_by: str = ""
    """The judges that say that the answer declines to answer, where most do; it scores 0."""
    by_judge: Mapping[str, float | None] = field(default_factory=dict)
    """The score that each judge of a jury gave; empty where there is only one."""


class Grader(typing.Protocol):
    """Grades answers: a judge with its votes, a dialogue, or a jury of either."""

    async def grade(self, record: CompletionRecord, *, answer: str) -> Grade:
        """Compare an answer with its reference."""
        ...


@dataclass(slots=True, kw_only=True)
class Judge:
    """One judge that votes, each vote with a prompt of its own, read strictly."""

    name: str
    identity: Mapping[str, Any]
    ask: Ask
    """Sends one prompt; retries are inside."""
    spec: LLMJudge
    texts: Mapping[str, str]
    cache: VerdictCache | None
    thinking: Pairs = ()  # marks of it that the protocol adds
    _templates: dict[str, jinja2.Template] = field(init=False)
    _structured: bool = field(init=False, default=True)
    _switch: Mapping[str, Any] = field(init=False)  # off the judge's thinking

    def __post_init__(self) -> None:
        self._templates = compiled({name: self.texts[name] for name in self.spec.prompt_files()})
        self._switch = thinking_switch(self.spec.thinking, self.name)

    async def grade(self, record: CompletionRecord, *, answer: str) -> Grade:
        """Ask for as many votes as the decision needs."""
        rubric, fields = self.spec.rubric(record.kind), fields_of(record, answer=answer)
        votes: list[Vote] = []
        score = None
        for calls in _rounds(rubric, record.sample_id):
            asked = [self._vote(*call, rubric, record, fields) for call in calls]
            votes += await asyncio.gather(*asked)
            points = [vote.points for vote in votes]
            score = decide(points, rubric)
            best = max((points.count(one) for one in points if one is not None), default=0)
            num_left = rubric.num_votes - len(votes)
            if score is not None or 2 * (best + num_left) <= rubric.num_votes:
                break
        num_valid = sum(vote.points is not None for vote in votes)
        if score is not None and 2 * sum(vote.is_refusal for vote in votes) > num_valid:
            return Grade(score=0.0, votes=tuple(votes), refused_by=self.name)
        return Grade(score=score, votes=tuple(votes))

    async def _vote(
        self, cell: PromptCell, turn: int, rubric: Rubric, record: CompletionRecord, fields: Fields
    ) -> Vote:
        """Return one vote: asked now, or known from the cache, or just being asked elsewhere."""
        spec = self.spec.sampling  # each repeat has a seed of its own
        seed = spec.seed + turn * SEEDS_APART
        sampling = Sampling(**{**spec.model_dump(), "seed": seed})
        key = digest(
            [
                dict(self.identity),
                asdict(sampling),
                self.texts[cell.file],
                fields,
                cell.answer_first,
                self._switch,
                *(rubric.labels, replies.verdict_schema(rubric.scale, rubric.reply)),
                JUDGING_VERSION,  # how replies are read moves a vote, too
                *self.thinking,
            ]
        )
        name = cell.name + (f"#{turn + 1}" if turn else "")
        vote = Vote(judge=self.name, prompt=name, key=key)

        async def ask() -> Vote:
            template = self._templates[cell.file]
            text = filled(template, record, fields, swapped=cell.answer_first)
            text += self._switch.get("suffix", "")
            return await self._asked(vote, text, rubric, sampling, answer=fields["answer"])

        fits = partial(self._fits, rubric=rubric, answer=fields["answer"])
        return await remembered(self.cache, vote, ask, fits)

    async def _asked(
        self, vote: Vote, text: str, rubric: Rubric, sampling: Sampling, *, answer: str
    ) -> Vote:
        """Ask for a vote; a failure becomes part of it."""
        started = time.monotonic()
        found: dict[str, Any] = {}
        spent = Counter[str]()
        for number in range(1, self.spec.tries + 1):
            again = replace(sampling, seed=sampling.seed + number - 1)
            found = await self._attempt(text, rubric, again, answer=answer, spent=spent)
            if number == 1:  # at temperature 0 another seed alone would change nothing
                text += REMINDER + (" or ".join(rubric.labels) or _FORM.format(*rubric.scale))
                rubric = rubric.model_copy(update={"reply": "score"})
            found |= {"calls": number, **spent}
            if "points" in found or "reply" not in found:
                break
        seconds = round(time.monotonic() - started, 3)
        return vote.model_copy(update={**found, "seconds": seconds})

    async def _attempt(
        self,
        text: str,
        rubric: Rubric,
        sampling: Sampling,
        *,
        answer: str,
        spent: Counter[str],
    ) -> dict[str, Any]:
        """Send the prompt once and read what comes back; count the tokens that it took."""
        schema = None if rubric.labels else replies.verdict_schema(rubric.scale, rubric.reply)
        try:
            completion = await self._ask(text, schema, sampling)
        except ModelError as error:
            return {"failure": Failure(error=type(error).__name__, message=str(error))}
        reply, tokens = completion.text or "", completion.completion_tokens or 0
        more = self.thinking
        thought = len(thinking_of(reply, more=more)) / max(len(reply), 1)
        spent.update(tokens=tokens, thinking_tokens=round(tokens * thought))
        try:
            if (ending := completion.finish_reason) not in {None, "stop"}:
                limit = f"{CUT}, judge.sampling.max_tokens={sampling.max_tokens}"
                said = limit if ending == "length" else f"the reply ended by {ending}"
                raise ReplyUnusable(said)  # noqa: TRY301 (as of a reply that was read)
            return self._said(reply, rubric, answer=answer)
        except ReplyUnusable as error:
            failure = Failure(error=type(error).__name__, message=str(error))
            return {"reply": reply, "failure": failure}

    def _said(self, reply: str, rubric: Rubric, *, answer: str) -> dict[str, Any]:
        """Return what a reply says, by the fields of a vote. Raises `ReplyUnusable`."""
        more = self.thinking
        points = (
            replies.read_label(reply, labels=rubric.labels, more=more)
            if rubric.labels
            else replies.read_points(reply, scale=rubric.scale, answer=answer, more=more)
        )
        known = rubric.scale[0] if points is None else points
        labels = () if rubric.labels else replies.labels_of(reply, more=more)
        return {"reply": reply, "points": known, "is_refusal": points is None, "labels": labels}

    def _fits(self, known: Mapping[str, Any], rubric: Rubric, *, answer: str) -> bool:
        """Tell whether a vote is what its reply says; without the reply, whether it may be one."""
        if known["reply"] is not None:
            with suppress(ReplyUnusable):
                return self._said(known["reply"], rubric, answer=answer).items() <= known.items()
            return False
        lowest, highest = rubric.scale
        offered = rubric.labels.values() or range(lowest, highest + 1)
        words = set() if rubric.labels else {*replies.RELATIONS, *replies.FINDING_TAGS}
        is_one = known["points"] in offered and words.issuperset(known["labels"])
        return is_one and (known["points"] == lowest or not known["is_refusal"])

    async def _ask(
        self, text: str, schema: Mapping[str, Any] | None, sampling: Sampling
    ) -> Completion:
        """Ask with the schema where the server takes one, else without, and remember which."""
        if self._structured and schema is not None:
            try:
                prompt = Prompt(text=text, schema=schema, extra=self._switch.get("body", {}))
                return await self.ask(prompt, sampling)
            except RequestRefused as error:
                if not error.is_schema:
                    raise
                if self._structured:  # the first of several in flight
                    why = error.hint or "refused"
                    _LOG.warning("judge %s follows no JSON schema: %s", self.name, why)
                self._structured = False
        return await self.ask(Prompt(text=text, extra=self._switch.get("body", {})), sampling)


def decide(points: list[float | None], rubric: Rubric) -> float | None:
    """Turn the votes so far into a score in [0, 1], or None while they do not decide.

    A majority is counted of all votes there can be, so two equal votes of three decide although
    the third failed or was never asked. A mean needs every vote.
    """
    lowest, highest = rubric.scale
    valid = [point for point in points if point is not None]
    if rubric.decide == "mean":
        value = fmean(valid) if len(valid) == rubric.num_votes else None
    else:
        most = Counter(valid).most_common(1)
        value = most[0][0] if most and 2 * most[0][1] > rubric.num_votes else None
    return None if value is None else (value - lowest) / (highest - lowest)


class PromptCell(NamedTuple):
    """One way to put an answer before a judge: a wording, and what of the two it shows first."""

    file: str
    answer_first: bool = False

    @property
    def name(self) -> str:
        """How its votes are signed, such as `question_1` or `question_1/answer_first`."""
        return prompt_name(self.file) + SWAPPED * self.answer_first


def cells(rubric: Rubric, sample_id: str) -> list[PromptCell]:
    """Return the cells that an answer meets: each wording once, the first two in both orders.

    Drawn by the sample, so that over many of them neither effect hides in the other.
    """
    if not rubric.crossed:
        return [PromptCell(file) for file in rubric.prompts]
    draw = random.Random(f"cells {sample_id}")  # noqa: S311 (no secret: the same for a sample)
    files = draw.sample(rubric.prompts, len(rubric.prompts))
    first, *others = (bool(draw.getrandbits(1)) for _ in files)
    return [PromptCell(*one) for one in zip(files, [first, not first, *others[1:]], strict=False)]


def _rounds(rubric: Rubric, sample_id: str) -> list[list[tuple[PromptCell, int]]]:
    """Group the votes, a cell and its repeat each, by when they go out: first what can decide.

    Cells differ more than repeats of one, so every cell is asked once before any twice.
    """
    calls = [(cell, n) for n in range(rubric.repeats) for cell in cells(rubric, sample_id)]
    if rubric.decide == "mean":
        return [calls]
    first = rubric.num_votes // 2 + 1
    return [calls[:first], *([call] for call in calls[first:])]


def first_votes(protocol: Protocol, record: CompletionRecord, answer: str) -> dict[str, str]:
    """Return the prompts that are always asked, by cell; of a dialogue and of rules none."""
    if not isinstance(spec := protocol.judge, LLMJudge):
        return {}
    templates, fields = compiled(protocol.judge_prompts), fields_of(record, answer=answer)
    return {
        cell.name: filled(templates[cell.file], record, fields, swapped=cell.answer_first)
        for cell, _ in _rounds(spec.rubric(record.kind), record.sample_id)[0]
    }


_MOST_POINTS = 5
"""Of a report; fixed in the published code."""
_ENOUGH = 2
"""Turns that must say 1 for an answer to count as right, out of however many."""


@dataclass(slots=True, kw_only=True)
class Dialogue:
    """One judge, asked the published way: in each turn of one dialogue it is to think again.

    The mechanics are kept, defects included, so that published numbers can be compared: the answer
    stands in the prompt as it is, every later turn invites a change of mind, and one reply that
    cannot be read leaves the whole sample without a verdict.
    """

    name: str
    identity: Mapping[str, Any]
    ask: Ask
    spec: DialogueJudge
    texts: Mapping[str, str]
    cache: VerdictCache | None
    _templates: dict[str, jinja2.Template] = field(init=False)
    _sampling: Sampling = field(init=False)

    def __post_init__(self) -> None:
        self._templates = compiled({name: self.texts[name] for name in self.spec.prompt_files()})
        self._sampling = Sampling(**self.spec.sampling.model_dump())

    async def grade(self, record: CompletionRecord, *, answer: str) -> Grade:
        """Hold the dialogue, or take all of it from the cache."""
        is_report = record.kind is Kind.REPORT
        opening = self.spec.report_prompt_file if is_report else self.spec.prompt_file
        files = [opening, *[self.spec.again_file] * (self.spec.turns - 1)]
        fields = fields_of(record, answer=answer, published=True)
        turns = self._turns(files, fields)
        votes = self._known(turns, is_report=is_report)
        if votes is None:
            texts = [filled(self._templates[file], record, fields) for file in files]
            votes = await self._held(turns, texts, is_report=is_report)
        points = [vote.points for vote in votes]
        score = published_score(points, is_report=is_report, turns=self.spec.turns)
        return Grade(score=score, votes=tuple(votes))

    def _turns(self, files: Sequence[str], fields: Mapping[str, str]) -> list[Vote]:
        """Return the turns to come; all that a turn hears before follows from its key."""
        sampling, texts = self.spec.sampling.model_dump(), [self.texts[file] for file in files]
        asked = [dict(self.identity), sampling, texts, dict(fields), "dialogue"]
        return [
            Vote(judge=self.name, prompt=f"turn_{number}", key=digest([*asked, number]))
            for number in range(1, len(files) + 1)
        ]

    def _known(self, turns: Sequence[Vote], *, is_report: bool) -> list[Vote] | None:
        """Return the whole dialogue from the cache; half of one could not be gone on with."""
        fits = partial(_is_published, is_report=is_report)
        found = [self.cache.find(vote.key, fits) if self.cache else None for vote in turns]
        if None in found:
            return None
        return [vote.model_copy(update=hit) for vote, hit in zip(turns, found, strict=True)]

    async def _held(
        self, turns: Sequence[Vote], texts: Sequence[str], *, is_report: bool
    ) -> list[Vote]:
        """Ask turn by turn, up to the first reply that cannot be read."""
        votes: list[Vote] = []
        before: list[tuple[str, str]] = []
        for turn, text in zip(turns, texts, strict=True):
            started = time.monotonic()
            prompt = Prompt(text=text, before=tuple(before))
            found = await self._asked(prompt, is_report=is_report)
            seconds = round(time.monotonic() - started, 3)
            votes.append(turn.model_copy(update={**found, "calls": 1, "seconds": seconds}))
            if votes[-1].points is None:
                break
            before.append((text, found["reply"]))
        return votes

    async def _asked(self, prompt: Prompt, *, is_report: bool) -> dict[str, Any]:
        """Ask one turn; a failure becomes part of its vote."""
        reply: str | None = None
        try:
            reply = (await self.ask(prompt, self._sampling)).text
            if reply is None:
                raise ReplyUnusable("the judge sent no text")
            return {"reply": reply, "points": replies.read_published(reply, is_report=is_report)}
        except ModelError as error:
            failure = Failure(error=type(error).__name__, message=str(error))
            return {"reply": reply, "failure": failure}


def _is_published(known: Mapping[str, Any], *, is_report: bool) -> bool:
    """Tell whether a kept turn says what its reply does; without it, points as usual."""
    points: float = known["points"]
    if (reply := known["reply"]) is None:
        return 0 <= points <= _MOST_POINTS if is_report else points in {0, 1}
    with suppress(ReplyUnusable):
        return replies.read_published(reply, is_report=is_report) == points
    return False


def published_score(
    points: Sequence[float | None], *, is_report: bool, turns: int = 3
) -> float | None:
    """Turn what the turns said into a score: two of three that say 1, or a report's mean of 5.

    No range is checked, so a report can score more than 1. None where a turn is missing.

    >>> published_score([1.0, 0.0, 1.0], is_report=False)
    1.0
    >>> published_score([7.0, 7.0, 7.0], is_report=True)
    1.4
    """
    valid = [point for point in points if point is not None]
    if len(valid) < turns:
        return None
    if is_report:
        return sum(valid) / turns / _MOST_POINTS
    return float(valid.count(1.0) >= _ENOUGH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jury:
    """Judges by name, and how their scores are combined."""

    judges: Mapping[str, Grader]
    combine: Combining

    async def grade(self, record: CompletionRecord, *, answer: str) -> Grade:
        """Ask every judge; reports, which have many scores, are always averaged."""
        grades = await asyncio.gather(
            *(judge.grade(record, answer=answer) for judge in self.judges.values())
        )
        by_judge = {name: grade.score for name, grade in zip(self.judges, grades, strict=True)}
        how = "mean" if record.kind is Kind.REPORT else self.combine
        score = combined(list(by_judge.values()), combine=how)
        by = [grade.refused_by for grade in grades if grade.refused_by]
        is_refusal = score is not None and 2 * len(by) > len(grades)
        return Grade(
            score=0.0 if is_refusal else score,
            refused_by=", ".join(by) if is_refusal else "",
            votes=tuple(vote for grade in grades for vote in grade.votes),
            by_judge=by_judge,
        )


def combined(scores: list[float | None], *, combine: Combining) -> float | None:
    """Combine the judges' scores; None where too few of them came to one.

    A majority is of the whole jury, so two equal scores of three decide although the third judge
    failed. A mean of only some of the judges would be the mean of another jury.

    >>> combined([1.0, None, 1.0], combine="majority")
    1.0
    >>> combined([1.0, None, 1.0], combine="mean") is None
    True
    """
    valid = [score for score in scores if score is not None]
    if combine == "mean":
        return fmean(valid) if valid and len(valid) == len(scores) else None
    most = Counter(valid).most_common(1)
    return most[0][0] if most and 2 * most[0][1] > len(scores) else None


def grader_for(
    protocol: Protocol,
    asks: Mapping[str, Ask],
    *,
    identities: Mapping[str, Mapping[str, Any]],
    cache: VerdictCache | None,
) -> Grader | None:
    """Return what grades in the protocol's way: a judge, a jury of several, or None without any.

    `asks` and `identities` are by the names that sign the votes.
    """
    spec, graders = protocol.judge, dict[str, Grader]()
    for name, ask in asks.items():
        common: Any = {"name": name, "identity": identities[name], "ask": ask, "cache": cache}
        common["texts"] = protocol.texts
        if isinstance(spec, DialogueJudge):
            graders[name] = Dialogue(spec=spec, **common)
        elif isinstance(spec, LLMJudge):
            graders[name] = Judge(spec=spec, thinking=protocol.answer.thinking, **common)
    if len(graders) > 1 and not isinstance(spec, RulesOnly):
        return Jury(judges=graders, combine=spec.jury)
    return next(iter(graders.values()), None)
