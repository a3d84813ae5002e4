"""Verdicts recomputed from the stored raw replies: an edit of one must match the other.

The judge of the submission is replaced by one that repeats the replies in the file; all else
(what is the answer, how a reply is read, how votes are counted, what the rules say) is done again
by the code that any run goes through. What a judge would really say only a judge can tell: it is
asked about a sample that cannot be predicted, or a forger would leave exactly these answers alone.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError, RequestFailed, first_error
from medix_eval.evaluation.panel import Panel, ResolvedJudge
from medix_eval.exchange.submission import Submission
from medix_eval.judging.judge import CUT, REMINDER, SEEDS_APART, Grader, grader_for
from medix_eval.judging.outcomes import outcome_of, verdict_of
from medix_eval.judging.protocol import (
    JUDGING_VERSION,
    DialogueJudge,
    LLMJudge,
    Protocol,
    by_role,
    load_protocol,
    prompt_name,
    protocol_names,
)
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.records import CompletionRecord, VerdictRecord, Vote
from medix_eval.results.scoring import score_run
from medix_eval.results.store import JudgingManifest, RunManifest

_BESIDE = ("rule", "judge_score", "judge_scores", "error_tags")
"""What scores show beside the score."""


def judged_by_other_code(judging: JudgingManifest) -> str | None:
    """Say that its verdicts are of another version of the judging code, and what helps."""
    version = judging.judging.get("version")
    if version == JUDGING_VERSION:
        return None
    what = f"it was judged by version {version} of the judging code, but this is {JUDGING_VERSION}"
    return f"{what}: judge it again with `medix-eval judge RUN`, and submit that"


def protocol_of(manifest: RunManifest, judging: JudgingManifest) -> Protocol:
    """Rebuild the protocol from the settings that a run keeps.

    Raises `ConfigError` if they are not a protocol, or of another version of the judging code.
    """
    if stale := judged_by_other_code(judging):
        raise ConfigError(stale)
    names = judging.prompt_names
    kept = by_role(judging.judging, lambda role, old: f"{role}/{names[role]}" if names else old)
    judge = kept.get("judge")
    if not isinstance(judge, dict):
        raise ConfigError("judging.json has no judge")
    judge = dict(judge)
    if judge.get("scorer") != "rules":
        judge["model"] = "recorded"
    fields: dict[str, Any] = {
        "name": judging.protocol.get("name"),
        "version": 1,
        "summary": "",
        "answer": kept.get("answer"),
        "judge": judge,
        "twins": kept.get("twins"),
        "harm": kept.get("harm") or {},
        "generation": manifest.generation.get("generation"),
        "images": manifest.generation.get("images"),
        "texts": kept.get("prompts") or {},
    }
    try:
        protocol = Protocol.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"judging.json has no protocol: {first_error(error)}") from error
    if missing := {*protocol.judge.prompt_files()} - protocol.texts.keys():
        raise ConfigError(f"judging.json lacks the prompts {', '.join(sorted(missing))}")
    return protocol


async def problem_of_replies(
    protocol: Protocol, record: CompletionRecord, kept: VerdictRecord, *, judges: Sequence[str]
) -> str | None:
    """Score one completion with the replies of its stored verdict, and say what differs."""
    grader = _grader(protocol, kept.votes, judges)
    again = await verdict_of(record, protocol=protocol, grader=grader)
    if (again.outcome, again.score, again.answer) != (kept.outcome, kept.score, kept.answer):
        return f"{kept.outcome} is stated, its replies give {again.outcome}"
    votes = [
        [(one.judge, one.prompt, one.points, one.labels) for one in its.votes]
        for its in (again, kept)
    ]
    if votes[0] != votes[1]:
        return "what a vote says does not match its reply"
    for name in _BESIDE:
        if getattr(again, name) != getattr(kept, name):
            return f"{name} is stated as {getattr(kept, name)}, but is {getattr(again, name)}"
    return None


async def problem_of_points(
    protocol: Protocol, record: CompletionRecord, kept: VerdictRecord, *, judges: Sequence[str]
) -> str | None:
    """Count the votes of a sample without text again, and say what differs."""
    spec = protocol.judge
    if not kept.outcome.is_read:
        return None if not kept.score else f"{kept.outcome} with the score {kept.score:g}"
    score = kept.rule.score if kept.rule else None
    if isinstance(spec, DialogueJudge) or (isinstance(spec, LLMJudge) and spec.rules == "beside"):
        votes = [_said_points(vote, spec, record) for vote in kept.votes]
        grader = _grader(protocol, votes, judges)
        grade = await grader.grade(record, answer="-") if grader else None
        if grade is None or [v.points for v in grade.votes] != [v.points for v in kept.votes]:
            return "its votes do not follow from its protocol"
        score = grade.score
    elif score is None and isinstance(spec, LLMJudge):
        grader = _grader(protocol, [_said_points(one, spec, record) for one in kept.votes], judges)
        score = (await grader.grade(record, answer="-")).score if grader else None
    if kept.score != score or kept.outcome != outcome_of(kept.score or 0.0):
        return f"{kept.outcome} with the score {kept.score} is stated, its votes give {score}"
    return None


def _grader(protocol: Protocol, kept: Sequence[Vote], judges: Sequence[str]) -> Grader | None:
    """Return the judges that say again what they said; a stranger's prompts are never filled in."""
    texts = {file: f"prompt {number}" for number, file in enumerate(protocol.judge_prompts)}
    said = {name: _Recorded([vote for vote in kept if vote.judge == name]) for name in judges}
    return grader_for(
        protocol.model_copy(update={"texts": texts}),
        {name: one.ask for name, one in said.items()},
        identities={name: {} for name in judges},
        cache=None,
    )


def _said_points(vote: Vote, spec: LLMJudge | DialogueJudge, record: CompletionRecord) -> Vote:
    """Put the points into a reply, for the reply itself was left out."""
    if vote.points is None:
        return vote
    labels = spec.rubric(record.kind).labels if isinstance(spec, LLMJudge) else {}
    words = {points: word for word, points in labels.items()}
    number = int(vote.points) if float(vote.points).is_integer() else vote.points
    reply = words.get(int(number), "") if labels else json.dumps({"score": number})
    return vote.model_copy(update={"reply": reply})


@dataclass(slots=True)
class _Recorded:
    """Says the replies of one sample again, in the order in which they were asked for."""

    votes: Sequence[Vote]
    _said: dict[tuple[Any, ...], Vote | None] = field(default_factory=dict)

    async def ask(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Return the reply of the next vote; another try of a vote gets the same one."""
        text = prompt.text.rpartition(REMINDER)[0] or prompt.text
        call = (text, prompt.before, sampling.seed // SEEDS_APART)
        if call not in self._said:
            number = len(self._said)
            self._said[call] = self.votes[number] if number < len(self.votes) else None
        vote = self._said[call]
        if vote is None or vote.reply is None:
            said = vote.failure.message if vote and vote.failure else "this vote was not kept"
            raise RequestFailed(said)
        reason = "length" if CUT in str(vote.failure) else None
        return Completion(text=vote.reply, finish_reason=reason)


_NOT_FROM_VERDICTS = {"schema_version", "run", "selection", "labels", "cost", "tasks", "groups"}
_FROM_OUTSIDE = {"corrected", "corrected_interval", "metrics"}
"""By people's labels, or by code that is not ours."""
_FROM_TEXT = {"slices", "yes_no", "chance", "agreement_with_rules"}
_FROM_CLUSTERS = {"stderr", "interval", "interval_method", "n_clusters", "closed_form"}
"""Of a restricted task text and columns are left out, which these come from."""
_EXACT = 1e-9
_DRAWN = 0.005
"""Resampled limits may differ by this: another numpy may draw otherwise."""


def score_problems(given: Submission, catalogue: Catalogue) -> Iterator[str]:
    """Yield every figure in `scores.json` that does not follow from the verdicts."""
    stated = given.scores
    twins = given.judging.judging.get("twins")
    groups = {name: group.tasks for name, group in stated.groups.items()}
    groups |= catalogue.groups_with(twins if isinstance(twins, str) else None)
    incomplete = [one for one in stated.groups.values() if not one.complete]
    again = score_run(
        given.folder,
        given.folder,
        manifest=given.manifest,
        judging=given.judging,
        groups=groups,
        allow_partial=any(one.score is not None for one in incomplete),
    )
    said, true = stated.model_dump(mode="json"), again.model_dump(mode="json")
    yield from _unlike(said, true, but=_NOT_FROM_VERDICTS)
    restricted = {*given.listed.restricted} & {*given.judging.tasks}
    is_clustered = {name for name in restricted if given.manifest.tasks[name].cluster}
    for kind in ("tasks", "groups"):
        for name in sorted({*said[kind], *true[kind]}):
            members = {name} if kind == "tasks" else {*true[kind].get(name, {}).get("tasks", ())}
            but = _FROM_OUTSIDE | (_FROM_TEXT if members & restricted else set())
            but |= _FROM_CLUSTERS if members & is_clustered else set()
            yield from _unlike(said[kind].get(name), true[kind].get(name), at=name, but=but)


def unchecked_scores(given: Submission) -> Iterator[str]:
    """Yield what of the scores rests on files that are not in a submission."""
    scores = given.scores
    if scores.labels or any(one.corrected for one in scores.tasks.values()):
        yield "scores corrected by people's labels: those are not in a submission"
    if any(one.metrics for one in scores.tasks.values()):
        yield "metrics of plug-ins: their code is not in a submission"
    if scores.cost:
        yield "what it cost: the prices are not in a submission"


def _unlike(said: Any, true: Any, *, at: str = "", but: set[str] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    if isinstance(said, dict) and isinstance(true, dict):
        for key in sorted({*said, *true} - but):
            yield from _unlike(said.get(key), true.get(key), at=f"{at} {key}".strip())
    elif isinstance(said, list) and isinstance(true, list) and len(said) == len(true):
        for one, other in zip(said, true, strict=True):
            yield from _unlike(one, other, at=at)
    elif not _is_same(said, true, within=_DRAWN if at.endswith("interval") else _EXACT):
        yield f"scores.json: {at} states {_short(said)}, its verdicts give {_short(true)}"


def _is_same(said: object, true: object, *, within: float) -> bool:
    if isinstance(said, int | float) and isinstance(true, int | float):
        return said == true or abs(said - true) <= within
    return said == true


def _short(value: object) -> str:
    text = (
        "nothing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    )
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004


_MAY_DIFFER = 0.02
"""Share of the sample in which a judge may disagree: servers are not bit-exact."""
_ONE_POINT = 0.2
"""A report's score differs from this on: a point of five in every vote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedAgain:
    """What the judge said this time."""

    what: str
    problems: list[str]
    within_tolerance: list[str]


async def ask_again(
    given: Submission, judge: ResolvedJudge, *, num_samples: int, seed: int | None
) -> AskedAgain:
    """Judge a sample again. Raises `ConfigError` for prompts that are not bundled."""
    protocol = protocol_of(given.manifest, given.judging)
    if foreign := _foreign_prompts(protocol):
        raise ConfigError(f"its prompts are not bundled ({', '.join(foreign)}): read them first")
    judged = sorted(
        key
        for key, verdict in given.verdicts.items()
        if verdict.votes and key in given.completions and not given.is_restricted(key)
    )
    if not judged:
        raise ConfigError("no answer in it was judged by a language model")
    seed = secrets.randbelow(2**31) if seed is None else seed
    drawn = random.Random(seed).sample(judged, min(num_samples, len(judged)))  # noqa: S311
    async with AsyncExitStack() as stack:
        panel = Panel(protocol=protocol, judges=(judge,))
        await panel.open(stack, logs=given.folder)
        again = await panel.verdicts([given.completions[key] for key in drawn])
    pairs = [(given.verdicts[key], new) for key, new in zip(drawn, again, strict=True)]
    found = [
        f"{kept.task} {kept.sample_id}: {_said(kept)} is stated, {judge.name} says {_said(new)}"
        for kept, new in pairs
        if _differs(kept, new)
    ]
    more = fmean((kept.score or 0.0) - (new.score or 0.0) for kept, new in pairs)
    if too_much := more > _MAY_DIFFER:
        found.insert(0, f"stated scores are {100 * more:.1f} points above what {judge.name} gives")
    is_noise = not too_much and len(found) <= _MAY_DIFFER * len(drawn)
    return AskedAgain(
        what=f"samples judged again by {judge.name}: {len(drawn)}, --seed {seed}",
        problems=[] if is_noise else found,
        within_tolerance=found if is_noise else [],
    )


def _differs(kept: VerdictRecord, new: VerdictRecord) -> bool:
    if kept.score is None or new.score is None:
        return kept.outcome != new.outcome
    return abs(kept.score - new.score) >= _ONE_POINT - 1e-9


def _said(verdict: VerdictRecord) -> str:
    return verdict.outcome if verdict.score in {None, 0.0, 1.0} else f"{verdict.score:.2f}"


def _foreign_prompts(protocol: Protocol) -> list[str]:
    """Return the prompts that are not verbatim bundled files."""
    ours = {text for name in protocol_names() for text in load_protocol(name).texts.values()}
    return [prompt_name(file) for file, text in protocol.judge_prompts.items() if text not in ours]
