"""Verdicts made again from the raw replies that were kept: whoever edits one must edit the other.

The judge of the submission is replaced by one that says again what the file says it said; all else
(what is the answer, how a reply is read, how votes are counted, what the rules say) is done anew
by the code that any run goes through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from medix_eval.errors import ConfigError, RequestFailed
from medix_eval.judging.dialogue import Dialogue
from medix_eval.judging.judge import Grader, Judge
from medix_eval.judging.jury import Jury
from medix_eval.judging.outcomes import Scorer
from medix_eval.models.chat import Completion, Prompt, Sampling
from medix_eval.protocol import JUDGING_VERSION, DialogueJudge, LLMJudge, Protocol
from medix_eval.records import CompletionRecord, VerdictRecord, Vote
from medix_eval.store import JudgingManifest, RunManifest

_SEEDS_APART = 1000


def protocol_of(manifest: RunManifest, judging: JudgingManifest) -> Protocol:
    """Rebuild the protocol from the settings that a run keeps.

    Raises `ConfigError` where they are no protocol's, or of another version of the judging code.
    """
    kept = judging.judging
    if kept.get("version") != JUDGING_VERSION:
        raise ConfigError(
            f"judged by version {kept.get('version')} of the judging code; this is "
            f"version {JUDGING_VERSION}",
            hint="judge it again with `medix-eval judge`, or check it with that version",
        )
    judge = dict(kept.get("judge") or {})
    if judge.get("scorer") != "rules":
        judge["model"] = "recorded"
    fields: dict[str, Any] = {
        "name": judging.protocol["name"],
        "version": 1,
        "summary": "",
        "answer": kept.get("answer"),
        "judge": judge,
        "twins": kept.get("twins"),
        "generation": manifest.generation.get("generation"),
        "images": manifest.generation.get("images"),
        "texts": kept.get("prompts") or {},
    }
    try:
        return Protocol.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"judging.json holds no protocol: {where} {first['msg']}") from error


async def verdict_again(
    protocol: Protocol, record: CompletionRecord, kept: VerdictRecord, *, judges: Sequence[str]
) -> VerdictRecord:
    """Score one completion with the replies of its kept verdict."""
    spec = protocol.judge
    graders: dict[str, Grader] = {}
    for name in judges:
        votes = [vote for vote in kept.votes if vote.judge == name]
        common: Mapping[str, Any] = {
            "name": name,
            "identity": {},
            "ask": _Recorded(votes).ask,
            "texts": protocol.texts,
            "cache": None,
        }
        if isinstance(spec, DialogueJudge):
            graders[name] = Dialogue(spec=spec, **common)
        elif isinstance(spec, LLMJudge):
            graders[name] = Judge(spec=spec, **common)
    grader: Grader | None = next(iter(graders.values()), None)
    if len(graders) > 1:
        assert isinstance(spec, LLMJudge | DialogueJudge)  # noqa: S101 (else there is no grader)
        grader = Jury(judges=graders, combine=spec.jury)
    return await Scorer(protocol, grader).score(record)


@dataclass(slots=True)
class _Recorded:
    """Says the replies of one sample again, in the order in which they were asked for."""

    votes: Sequence[Vote]
    _said: dict[tuple[Any, ...], Vote | None] = field(default_factory=dict)

    async def ask(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Return the reply of the next vote; another try of a vote gets the same one."""
        call = (prompt.text, prompt.before, sampling.seed // _SEEDS_APART)
        if call not in self._said:
            number = len(self._said)
            self._said[call] = self.votes[number] if number < len(self.votes) else None
        vote = self._said[call]
        if vote is None or vote.reply is None:
            said = vote.failure.message if vote and vote.failure else "this vote was not kept"
            raise RequestFailed(said)
        return Completion(text=vote.reply)
