"""A seeded sample of a submission's answers, put before a judge again.

Nobody but a judge can tell whether a reply is what a judge would say. The sample must not be
guessable, or a forger would leave exactly these answers alone.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import fmean

from medix_eval.errors import ConfigError
from medix_eval.evaluation.panel import Appointed, grader_for, open_judges
from medix_eval.exchange.recorded import protocol_of
from medix_eval.exchange.submission import Submission
from medix_eval.judging.outcomes import Scorer
from medix_eval.judging.protocol import Protocol, prompt_name
from medix_eval.models.requests import RetryPolicy
from medix_eval.records import VerdictRecord
from medix_eval.storage.bundled import bundled

_MAY_DIFFER = 0.02
"""Share of the sample in which a judge may say something else: servers are not bit-exact."""
_ONE_POINT = 0.2
"""A report's score differs from this on: a point of five in every vote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the judge said this time."""

    what: str
    problems: list[str]
    within_tolerance: list[str]


async def ask_again(
    given: Submission, judge: Appointed, *, num_samples: int, seed: int | None
) -> Asked:
    """Judge a sample again. Raises `ConfigError` for prompts that are not ours."""
    protocol = protocol_of(given.manifest, given.judging)
    if foreign := _foreign_prompts(protocol):
        raise ConfigError(f"its prompts are its own ({', '.join(foreign)}): read them first")
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
        models = await open_judges([judge], stack=stack, logs=given.folder)
        policy = RetryPolicy()
        grader = grader_for(judge, models[judge.name], protocol=protocol, policy=policy, cache=None)
        scorer = Scorer(protocol, grader)
        again = await asyncio.gather(*(scorer.score(given.completions[key]) for key in drawn))
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
    return Asked(
        what=f"{len(drawn)} samples judged again by {judge.name}, --seed {seed}",
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
    """Return the prompts that are not word for word files of ours."""
    files = bundled("judges").glob("prompts/*.jinja")
    ours = {path.read_text(encoding="utf-8") for path in files}
    return [prompt_name(file) for file, text in protocol.judge_prompts.items() if text not in ours]
