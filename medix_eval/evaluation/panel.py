"""The second half of a sample's way: a completion comes in, its verdict is kept.

An evaluation and `medix-eval judge` share it, so that saved completions are judged exactly as
fresh ones are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError, NoJudge, ServerError
from medix_eval.evaluation.progress import Progress
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.dialogue import Dialogue
from medix_eval.judging.judge import Grader, Judge, Jury
from medix_eval.judging.outcomes import Scorer
from medix_eval.judging.protocol import DialogueJudge, LLMJudge, Protocol, RulesOnly
from medix_eval.models.chat import ChatModel, ModelSource
from medix_eval.models.requests import RetryingModel, RetryPolicy, each, gate_for
from medix_eval.models.resolve import ModelFlags, resolve_model
from medix_eval.records import CompletionRecord
from medix_eval.results.store import Judging, JudgingManifest, Run, newest_completions
from medix_eval.storage.digests import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Appointed:
    """A judge of this run: found, but not yet open."""

    name: str
    """How its votes are signed; no two judges of a jury share it."""
    source: ModelSource
    identity: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class JudgingStage:
    """Judges, a scorer, and the folder that keeps what they say."""

    protocol: Protocol
    judges: tuple[Appointed, ...]
    """None of them where the protocol asks no language model."""
    policy: RetryPolicy
    run: Run
    judging: Judging
    cache: VerdictCache | None
    progress: Progress
    failed: set[tuple[str, str]] = field(default_factory=set)
    """Samples that were tried in vain; the next run may try them again."""
    _scorer: Scorer | None = field(init=False, default=None)

    @property
    def is_open(self) -> bool:
        """Whether completions can be scored by now."""
        return self._scorer is not None

    @property
    def devices(self) -> frozenset[str]:
        """What the judges take of this machine."""
        return frozenset[str]().union(*(judge.source.devices for judge in self.judges))

    @property
    def concurrency(self) -> int:
        """How many completions to keep in judging, at most."""
        return max((judge.source.concurrency for judge in self.judges), default=1)

    async def open(self, stack: AsyncExitStack) -> None:
        """Open every judge."""
        self.begin(await open_judges(self.judges, stack=stack, logs=self.run.path / "logs"))

    def begin(self, models: Mapping[str, ChatModel]) -> None:
        """Begin with judges that are open, by their names; each has a gate of its own."""
        graders = {
            judge.name: grader_for(
                judge,
                models[judge.name],
                protocol=self.protocol,
                policy=self.policy,
                cache=self.cache,
            )
            for judge in self.judges
        }
        self._scorer = Scorer(self.protocol, self._together(graders))

    async def score(self, record: CompletionRecord) -> None:
        """Bring one completion to its verdict."""
        assert self._scorer is not None  # noqa: S101 (opened before the first verdict)
        verdict = await self._scorer.score(record)
        if verdict.outcome.is_failure:
            self.failed.add((record.task, record.sample_id))
        self.judging.append(verdict)
        # Only now: a kill between the two must not make a vote look as if it had been free.
        if self.cache is not None:
            task = self.run.manifest.tasks[record.task.partition("@")[0]]
            self.cache.keep(verdict.votes, restricted=task.data_class == "dua")
        self.progress.judged(verdict)

    async def score_saved(self, wanted: Mapping[tuple[str, str], int]) -> None:
        """Score completions that the run folder holds, by the number of their line."""
        self.progress.begin("judging", len(wanted))
        records = newest_completions(self.run.path, wanted=wanted)
        await each(records, self.score, limit=self.concurrency)

    def unjudged(self, rows: Mapping[str, frozenset[int]]) -> dict[tuple[str, str], int]:
        """Return the lines of completions without a verdict that stands, of these rows by task."""
        settled = self.judging.judged | self.failed
        return {
            key: seen.line
            for key, seen in self.run.seen.items()
            if key not in settled
            and seen.row in rows.get(key[0], ())
            and (seen.answered or key not in self.judging.rejected)
        }

    def _together(self, graders: Mapping[str, Grader]) -> Grader | None:
        if len(graders) < 2:  # noqa: PLR2004 (a jury is more than one)
            return next(iter(graders.values()), None)
        assert isinstance(self.protocol.judge, LLMJudge | DialogueJudge)  # noqa: S101
        return Jury(judges=graders, combine=self.protocol.judge.jury)


async def open_judges(
    judges: Sequence[Appointed], *, stack: AsyncExitStack, logs: Path
) -> dict[str, ChatModel]:
    """Open the judges, to be closed with the stack. Raises `NoJudge`."""
    models = {}
    for judge in judges:
        try:
            models[judge.name] = await stack.enter_async_context(judge.source.open(logs))
        except (ConfigError, ServerError) as error:
            raise NoJudge(error) from error
    return models


def grader_for(
    judge: Appointed,
    model: ChatModel,
    *,
    protocol: Protocol,
    policy: RetryPolicy,
    cache: VerdictCache | None,
) -> Grader:
    """Return what grades with an open model in the protocol's way."""
    source, spec = judge.source, protocol.judge
    gate = gate_for(concurrency=source.concurrency, adapts=source.adapts)
    asker = RetryingModel(model=model, policy=policy, role="judge", gate=gate)
    common: dict[str, Any] = {
        "name": judge.name,
        "identity": judge.identity,
        "ask": asker.complete,
        "texts": protocol.texts,
        "cache": cache,
    }
    if isinstance(spec, DialogueJudge):
        return Dialogue(spec=spec, **common)
    assert isinstance(spec, LLMJudge)  # noqa: S101 (a judge needs a rubric)
    return Judge(spec=spec, **common)


_SHARED = frozenset({"cpu"})
"""What several judges can use at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeChoice:
    """A judge as the user named it; without a name it is the protocol's own."""

    name: str | None
    flags: ModelFlags


def resolve_judges(
    protocol: Protocol, choices: Sequence[JudgeChoice], *, out: Path
) -> tuple[ModelSource, ...]:
    """Return the judges that the protocol asks for; none if it uses no language model."""
    spec = protocol.judge
    if isinstance(spec, RulesOnly):
        if any(choice.name for choice in choices):
            raise ConfigError(
                f"protocol {protocol.name!r} uses no judge, but --judge names one",
                hint="--protocol medix lets a language model judge",
            )
        return ()
    if spec.jury == "majority" and len(choices) % 2 == 0:
        raise ConfigError(
            f"{len(choices)} judges can be split evenly, and this protocol goes by their majority",
            hint="name an odd number of judges, or average them with --set judge.jury=mean",
        )
    return tuple(
        resolve_model(
            choice.name or spec.model,
            choice.flags,
            max_tokens=spec.sampling.max_tokens,
            out=out,
        )
        for choice in choices
    )


def appoint(sources: Sequence[ModelSource]) -> tuple[Appointed, ...]:
    """Find out who the judges are; without one of them nothing is generated."""
    taken: Counter[str] = Counter()
    names: Counter[str] = Counter()
    known: dict[str, str] = {}
    judges = []
    for source in sources:
        identity = _identity(source)
        names[source.name] += 1
        number = names[source.name]
        name = source.name if number == 1 else f"{source.name}#{number}"
        if (twin := known.setdefault(digest(identity), name)) != name:
            raise ConfigError(
                f"--judge {source.name} is the same model as {twin}",
                hint="several votes of one judge are the protocol's: --set judge.question.repeats=3"
                " with a temperature",
            )
        taken.update(source.devices - _SHARED)
        judges.append(Appointed(name=name, source=source, identity=identity))
    if crowded := [device for device, count in taken.items() if count > 1]:
        raise ConfigError(
            f"the judges of a jury are asked at the same time, and several need GPU {crowded[0]}",
            hint="give each GPUs of its own with --judge-gpus, once for every --judge, or serve "
            "them yourself and name them openai:NAME",
        )
    return tuple(judges)


def _identity(judge: ModelSource) -> dict[str, Any]:
    try:
        return judge.identity()
    except (ConfigError, ServerError) as error:
        raise NoJudge(error) from error


def judging_manifest(
    protocol: Protocol,
    judges: Sequence[Appointed],
    *,
    tasks: Sequence[str],
    generation: Mapping[str, Any] | None = None,
) -> JudgingManifest:
    """Describe a judging as `judging.json` keeps it.

    `generation` are the settings that the completions were made under, if not the protocol's.
    """
    identities = [dict(judge.identity) for judge in judges]
    judging = {**protocol.judging_settings(), "judges": identities}
    return JudgingManifest(
        protocol=protocol.stamp(generation),
        judges=[
            {
                "id": judge.name,
                "revision": judge.identity.get("commit") or judge.identity.get("id"),
                "digest": digest(dict(judge.identity)),
            }
            for judge in judges
        ],
        judging_digest=digest(judging),
        judging=judging,
        prompt_names=protocol.prompt_names,
        tasks=list(tasks),
    )
