"""What may stand in a run folder, from what the servers sent alone: no code of ours decides it."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from fake_world import JUDGES, Asked, Ended, World
from vendor_replies import (
    AGAIN,
    ANSWER,
    EMPTY,
    FAILED,
    REFUSED,
    REJECTED,
    STOP,
    TIME_OUT_S,
    TRUNCATED,
    UNREADABLE,
    UNSTRUCTURED,
    Reply,
)

from medix_eval.records import Kind

Line = Mapping[str, Any]
Way = tuple[str, float | None]
"""An outcome and its score."""
Said = float | str | None
"""A score, REFUSED, or neither."""

_TRIES = 5
_VOIDED = "refused as all requests were"
"""What a rejection becomes when every request turns out to be refused."""
_ALIKE = 8
"""So many samples that are refused, and none answered, may stop a run."""
_VOTES_ALIKE = 16
_PATIENCE_S = 300.0
_TURNED_AWAY_S = _PATIENCE_S + 2 * 75.0  # and the longest wait, for the last time
_OVERLOADED = frozenset({429, 502, 503, 504, 529})
_WITHOUT_READER: Mapping[str, Way] = {
    TRUNCATED: ("truncated", 0.0),
    REFUSED: ("refused", 0.0),
    EMPTY: ("empty", 0.0),
    REJECTED: ("rejected", 0.0),
    FAILED: ("request_failed", None),
    AGAIN: ("request_failed", None),
}
_POINTS = set("012345")
_ANSWERED = {ANSWER, TRUNCATED, REFUSED, EMPTY, UNREADABLE} | _POINTS
_SERVER_ERROR, _BAD_REQUEST = 4, 400
_FAILURES = {"request_failed", "judge_failed", "skipped"}
_UNSCORED = _FAILURES | {"unjudged"}


@dataclass(slots=True)
class Truth:
    """Follows one history, and complains of everything that was not so."""

    world: World
    complaints: list[str] = field(default_factory=list)
    _behind: dict[int, Asked] = field(default_factory=dict)
    """The reply behind the newest completion of each question."""
    _judged: dict[int, Asked] = field(default_factory=dict)
    """The reply that the newest verdict of each question is about."""
    _completions: list[Line] = field(default_factory=list)
    _verdicts: list[Line] = field(default_factory=list)
    _votes: list[Asked] = field(default_factory=list)
    """All that judges replied, of all runs."""
    _numbers: dict[str, int] = field(init=False)
    """The question of each sample id."""

    def __post_init__(self) -> None:
        self._numbers = self.world.sample_ids()

    def knows(self, number: int) -> bool:
        """Tell whether a question has been answered or judged, in some way."""
        return number in self._behind or number in self._judged

    def wrote_old(self, asked: Asked) -> None:
        """Note that an older version kept this reply as an answer."""
        self._new_lines("completions.jsonl", self._completions)
        self._behind[asked.number] = asked

    def after(self, ended: Ended, *, was_healed: bool) -> None:
        """Look at what a run left behind."""
        replies: defaultdict[int, list[Asked]] = defaultdict(list)
        votes: defaultdict[int, list[Asked]] = defaultdict(list)
        for asked in self.world.asked:
            if asked.is_delivered:
                (replies if asked.role == "model" else votes)[asked.number].append(asked)
        self._votes += [asked for asked in self.world.asked if asked.role != "model"]
        self.complaints += self.world.wrong
        settled = {
            q
            for q, line in self._newest(self._completions).items()
            if line.get("failure") is None and self._behind[q].reply.means - {AGAIN, FAILED}
        }
        judged_before = self._newest(self._verdicts)
        stale_before = self._stale()

        new_answers = self._new_lines("completions.jsonl", self._completions)
        new_verdicts = self._new_lines("verdicts.jsonl", self._verdicts)
        self._check_tries(replies, votes)
        self._check_completions(new_answers, replies)
        self._check_asked(settled, replies)
        voided = [line for line in new_verdicts if line.get("reason") == _VOIDED]
        if voided and type(ended.error).__name__ != "RefusesAll":
            self._say(map(self._question, voided), "was voided without a stop")
        unfailed = [self._question(one) for one in voided if not _failed(one)]
        self._say(unfailed, "is void, but no failure")
        told = [line for line in new_verdicts if line not in voided]
        self._check_judged(told, replies, votes, stale_before)
        self._check_votes_wanted(judged_before, stale_before, replies, votes)
        self._check_end(ended, settled)
        if ended.scores is not None:
            self._check_complete(settled, replies, new_verdicts, judged_before)
            self._check_scores(ended)
            if was_healed:
                verdicts = self._newest(self._verdicts)
                failed = [q for q in self.world.rows if q in verdicts and _failed(verdicts[q])]
                self._say(failed, "failed although all servers were well")
        elif not ended.was_killed:
            kept = {self._question(line) for line in new_answers}
            answered = [q for q, one in replies.items() if one[-1].reply.means <= _ANSWERED]
            lost = [q for q in answered if q not in kept]
            self._say(lost, "was answered, but the run that stopped kept no line of it")

    # What a server was asked

    def _check_tries(
        self, replies: Mapping[int, list[Asked]], votes: Mapping[int, list[Asked]]
    ) -> None:
        for number, several in replies.items():
            for one in several[:-1]:
                if AGAIN not in one.reply.means:
                    self._say([number], f"was asked again after {one.reply.name!r}")
            tries = [one for one in several if not _is_turned_away(one.reply)]
            lasted_s = several[-1].at - several[0].at
            if len(tries) > _TRIES or (len(several) > _TRIES and lasted_s > _TURNED_AWAY_S):
                self._say([number], f"was asked {len(several)} times in one run")
        for number, several in votes.items():
            by_vote = defaultdict(list)
            for one in several:
                by_vote[one.role, one.vote, one.answer].append(one)
            for same in by_vote.values():
                for one in same[:-1]:
                    if not one.reply.means & {AGAIN, UNREADABLE, UNSTRUCTURED}:
                        self._say([number], f"was judged again after {one.reply.name!r}")

    def _check_asked(self, settled: set[int], replies: Mapping[int, list[Asked]]) -> None:
        self._say([q for q in replies if q in settled], "was asked although it was answered before")

    # What was kept

    def _check_completions(self, lines: Sequence[Line], replies: Mapping[int, list[Asked]]) -> None:
        seen = Counter(self._question(line) for line in lines)
        self._say([q for q, times in seen.items() if times > 1], "has two completions of one run")
        for line in lines:
            number = self._question(line)
            several = replies.get(number)
            if not several:
                self._say([number], "has a completion, but no reply came")
                continue
            last, is_failure = several[-1], line.get("failure") is not None
            self._behind[number] = last
            if not last.reply.means - {STOP}:
                self._say([number], f"{last.reply.name!r} was kept, which should have stopped all")
            gave_up = is_failure and last.reply.means == {AGAIN} and len(several) < _TRIES
            if gave_up:
                self._say([number], f"was given up after {len(several)} tries")
            if not is_failure and last.reply.means <= {AGAIN, FAILED, STOP, REJECTED}:
                self._say([number], f"{last.reply.name!r} was taken for an answer")

    def _check_judged(
        self,
        lines: Sequence[Line],
        replies: Mapping[int, list[Asked]],
        votes: Mapping[int, list[Asked]],
        stale_before: set[int],
    ) -> None:
        seen = Counter(self._question(line) for line in lines)
        self._say([q for q, times in seen.items() if times > 1], "has two verdicts of one run")
        for line in lines:
            number = self._question(line)
            # After a power cut the completion itself may be lost.
            about = replies[number][-1] if number in replies else self._behind.get(number)
            if about is None:
                self._say([number], "has a verdict, but no reply ever came")
                continue
            self._judged[number] = about
            allowed = self._ways(about, votes.get(number, []))
            score = line.get("score")
            found: Way = (line["outcome"], None if score is None else round(score, 9))
            if found not in allowed:
                what = f"{about.reply.name!r} became {_shown(found)}, not {_listed(allowed)}"
                self._say([number], what + _last_of(votes.get(number, [])))

    def _stale(self) -> set[int]:
        """Return the questions whose newest verdict is not of their newest completion."""
        return {q for q, reply in self._behind.items() if self._judged.get(q) is not reply}

    def _check_votes_wanted(
        self,
        before: Mapping[int, Line],
        stale_before: set[int],
        replies: Mapping[int, list[Asked]],
        votes: Mapping[int, list[Asked]],
    ) -> None:
        """No verdict that stands is asked for again."""
        for number, verdict in before.items():
            stands = not _failed(verdict) and number not in stale_before and number not in replies
            if stands and votes.get(number):
                self._say([number], "was judged again although its verdict stands")

    def _ways(self, about: Asked, votes: Sequence[Asked]) -> set[Way]:
        """Return how a question that got this reply may have ended."""
        reply, number = about.reply, about.number
        ways = {way for one, way in _WITHOUT_READER.items() if one in reply.means}
        if ANSWER not in reply.means:
            return ways
        score = float(reply.is_right)
        by_rule: set[Way] = {("correct" if reply.is_right else "wrong", score)}
        kind = self.world.questions[number].kind
        is_unsure = reply.is_garbled or kind is Kind.REPORT
        is_unsure = is_unsure or (kind is Kind.OPEN and not reply.is_right)
        if self.world.protocol == "rules":
            return ways | by_rule | ({("unjudged", None)} if is_unsure else set())
        by_judge = self._by_judges(about, votes, is_report=kind is Kind.REPORT)
        if self.world.protocol == "cascade":
            return ways | by_rule | (by_judge if is_unsure else set())
        return ways | by_judge

    def _by_judges(self, about: Asked, votes: Sequence[Asked], *, is_report: bool) -> set[Way]:
        """Return what the votes on this very answer can come to, of one judge or of a jury."""
        each = [
            self._by_judge(role, about, votes, is_report=is_report)
            for role in [*JUDGES.values()][: self.world.num_judges]
        ]
        return {_judged(_decided(said, is_report=is_report)) for said in product(*each)}

    def _by_judge(
        self, role: str, about: Asked, votes: Sequence[Asked], *, is_report: bool
    ) -> set[Said]:
        """Return what one judge's three votes can come to; None is no score."""
        possible: list[list[Said]] = []
        for vote in "123":
            mine = [
                one
                for one in votes
                if (one.role, one.vote) == (role, vote)
                and (about.reply.is_garbled or one.answer == about.reply.said)
            ]
            means = set(mine[-1].reply.means) if mine else {UNREADABLE}
            if self.world.uses_cache:
                for one in self._votes:
                    if (one.number, one.role, one.vote) == (about.number, role, vote):
                        means |= one.reply.means if one.is_delivered else set()
            most = 5 if is_report else 1
            points: list[Said] = [int(one) / most for one in means if one.isdigit()]
            points += [REFUSED] if REFUSED in means else []
            failed = any(not one.isdigit() and one != REFUSED for one in means)
            possible.append([*points, *([None] if failed else [])])
        return {_decided(said, is_report=is_report) for said in product(*possible)}

    # How it ended

    def _check_end(self, ended: Ended, settled: set[int]) -> None:
        error = ended.error
        delivered = [asked for asked in self.world.asked if asked.is_delivered]
        stops = [asked.reply.name for asked in delivered if asked.reply.means == {STOP}]
        if error is None:
            if stops and not ended.was_killed:
                self.complaints.append(f"{stops[0]!r} did not stop the run")
            if ended.scores is not None and not settled and self._is_refused_alike(delivered):
                self.complaints.append(f"{_ALIKE} equal refusals did not stop the run")
            return
        if getattr(error, "exit_code", None) != _SERVER_ERROR:
            self.complaints.append(f"the run ended with {type(error).__name__}: {error}")
        elif not (stops or self._may_stop(delivered) or not self.world.are_models_well):
            self.complaints.append(f"the run was stopped without a reason: {error}")

    def _is_refused_alike(self, delivered: Sequence[Asked]) -> bool:
        """Tell whether the first samples were all refused in the same words."""
        first = [asked for asked in delivered if asked.role == "model"][:_ALIKE]
        names = {asked.reply.name for asked in first}
        return (
            len(first) == _ALIKE
            and len(names) == 1
            and first[0].reply.means == {FAILED}
            and first[0].reply.status == _BAD_REQUEST
        )

    def _may_stop(self, delivered: Sequence[Asked]) -> bool:
        """Tell whether something else than one clear refusal may have stopped the run."""
        for role in ("model", *JUDGES.values()):
            mine = [asked for asked in delivered if asked.role == role]
            if any(STOP in asked.reply.means for asked in mine):
                return True
            answered_at = [asked.at for asked in mine if AGAIN not in asked.reply.means]
            began = min((asked.at for asked in mine), default=0.0)
            is_gone = any(asked.reply.name == "no connection" for asked in mine)
            limit_s = _PATIENCE_S if is_gone else TIME_OUT_S
            if mine and self.world.now - max([began, *answered_at]) >= limit_s:
                return True
            has_answered = any(asked.reply.means <= _ANSWERED for asked in mine)
            refused = {(a.number, a.vote) for a in mine if _is_refusal(a)}
            if len(refused) >= _ALIKE and not has_answered:
                return True
            unread = {(a.number, a.vote) for a in mine if UNREADABLE in a.reply.means}
            is_read = any(asked.reply.means <= _POINTS | {REFUSED} for asked in mine)
            if len(unread) >= _VOTES_ALIKE and not is_read:
                return True
        return False

    def _check_complete(
        self,
        settled: set[int],
        replies: Mapping[int, list[Asked]],
        new_verdicts: Sequence[Line],
        judged_before: Mapping[int, Line],
    ) -> None:
        """After a run to the end, everything was asked for that was missing."""
        every = self.world.rows
        self._say(
            [q for q in every if q not in replies and q not in settled], "was not asked again"
        )
        verdicts = self._newest(self._verdicts)
        self._say([q for q in every if q not in verdicts], "has no verdict")
        self._say(sorted(self._stale() & {*every}), "keeps the verdict of an older completion")
        fresh = {self._question(line) for line in new_verdicts}
        failed = [q for q, one in judged_before.items() if _failed(one)]
        again = [q for q in failed if q in every and q not in fresh]
        self._say(again, "had failed and was not judged again")

    def _check_scores(self, ended: Ended) -> None:
        assert ended.scores is not None
        task = ended.scores.tasks["made_up"]
        newest = self._newest(self._verdicts)
        verdicts = [newest[q] for q in self.world.rows if q in newest]
        outcomes = Counter(line["outcome"] for line in verdicts)
        scores = [line.get("score") for line in verdicts if line["outcome"] not in _UNSCORED]
        n, total = len(self.world.rows), math.fsum(score or 0.0 for score in scores)
        expected = {
            "n": n,
            "n_scored": len(scores),
            "score": total / len(scores) if scores else None,
            "bounds": (total / n, (total + n - len(scores)) / n),
            "outcomes": dict(outcomes),
            "failures": sum(outcomes[name] for name in _FAILURES),
        }
        found = {
            "n": task.n,
            "n_scored": task.n_scored,
            "score": task.score,
            "bounds": task.bounds,
            "outcomes": {name: count for name, count in task.outcomes.items() if count},
            "failures": ended.scores.num_failures,
        }
        for key, value in expected.items():
            if not _equal(found[key], value):
                self.complaints.append(f"scores: {key} is {found[key]}, not {value}")
        if any(line.get("score") is not None for line in verdicts if line["outcome"] in _UNSCORED):
            self.complaints.append("a failure has a score")

    # Lines

    def _new_lines(self, name: str, known: list[Line]) -> list[Line]:
        """Read a file, and return what was added; what was there before must still be there."""
        files = [*self.world.out.rglob(name)]
        content = files[0].read_bytes() if files else b""
        try:
            lines = [json.loads(line) for line in content.split(b"\n")[:-1]]
        except ValueError:
            self.complaints.append(f"{name} has a line that is not whole")
            return []
        if lines[: len(known)] != known:
            self.complaints.append(f"{name} has lost lines")
        new = lines[len(known) :]
        known[:] = lines
        return new

    def _question(self, line: Line) -> int:
        return self._numbers[line["sample_id"]]

    def _newest(self, lines: Sequence[Line]) -> dict[int, Line]:
        return {self._question(line): line for line in lines}

    def _say(self, numbers: Iterable[int], what: str) -> None:
        self.complaints += [f"question {number} {what}" for number in numbers]


def _decided(said: Sequence[Said], *, is_report: bool) -> Said:
    """Return what most say, or the mean of a report; a refusal counts 0 unless most say it."""
    scores = [0.0 if isinstance(one, str) else one for one in said]
    score = (_mean if is_report else _majority)(scores)
    valid = [one for one in said if one is not None]
    return REFUSED if score is not None and 2 * valid.count(REFUSED) > len(valid) else score


def _majority(scores: Sequence[float | None]) -> float | None:
    """Return what most of three say; one alone decides for itself."""
    for score in scores:
        if score is not None and 2 * scores.count(score) > len(scores):
            return score
    return None


def _mean(scores: Sequence[float | None]) -> float | None:
    valid = [score for score in scores if score is not None]
    return sum(valid) / len(valid) if len(valid) == len(scores) else None


def _judged(score: Said) -> Way:
    if score is None:
        return ("judge_failed", None)
    if isinstance(score, str):
        return ("refused", 0.0)
    outcome = {1.0: "correct", 0.0: "wrong"}.get(round(score, 9), "partial")
    return (outcome, round(score, 9))


def _is_refusal(asked: Asked) -> bool:
    reply = asked.reply
    return bool(reply.means & {FAILED, REJECTED}) or reply.name.startswith("another")


def _failed(verdict: Line) -> bool:
    return verdict["outcome"] in _FAILURES


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return all(_equal(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=1e-9)
    return bool(one == other)


def _shown(way: Way) -> str:
    return f"{way[0]} ({way[1]})"


def _listed(ways: set[Way]) -> str:
    return " or ".join(sorted(map(_shown, ways))) or "a stop"


def _last_of(votes: Sequence[Asked]) -> str:
    """Name what each vote came to."""
    last = {f"{one.role}.{one.vote}": one.reply.name for one in votes}
    return f"; votes: {', '.join(repr(last[vote]) for vote in sorted(last))}" if last else ""


def _is_turned_away(reply: Reply) -> bool:
    """Tell whether a reply is no try: nobody was there, or had too much to do."""
    says_so = reply.status == 200 and b'"error"' in reply.body
    return reply.name == "no connection" or reply.status in _OVERLOADED or says_so
