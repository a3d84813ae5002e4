"""The judges of a protocol at work: named, resolved, opened, asked, and their votes kept.

All judging is done here: an evaluation, `medix-eval judge`, the check of a judge, the check of a
submission, training. So an answer is judged alike, wherever it comes from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medix_eval.errors import UNREADABLE, ConfigError, NoJudge, ServerError
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.judge import Grade, Grader, grader_for
from medix_eval.judging.outcomes import verdict_of
from medix_eval.judging.prompts import check_prompts
from medix_eval.judging.protocol import Protocol, RulesOnly
from medix_eval.models.chat import ChatModel, ModelSource
from medix_eval.models.requests import RetryingModel, RetryPolicy, each, gate_for
from medix_eval.models.resolve import ModelFlags, resolve_model
from medix_eval.records import CompletionRecord, VerdictRecord, Vote
from medix_eval.report.format import counted
from medix_eval.results.store import JudgingManifest
from medix_eval.storage.digests import digest

_SHARED = frozenset({"cpu"})
"""What several judges can use at once."""
_MOST_UNREAD = 16  # votes of a judge, from its first on, of which none could be read


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedJudge:
    """A judge that was found, but is not open yet."""

    name: str
    """The name on its votes; unique within a jury."""
    source: ModelSource
    identity: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Panel:
    """The judges of a protocol, and what it takes to ask them."""

    protocol: Protocol
    judges: tuple[ResolvedJudge, ...]
    """Empty if the protocol uses no language model."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    cache: VerdictCache | None = None
    models: dict[str, ChatModel] = field(default_factory=dict)
    """Judges that are open, by name; panels with one dict in common share them."""
    gives_up: bool = True
    """Whether a judge whose replies cannot be read stops the work; it is measured to the end."""
    is_open: bool = field(init=False, default=False)
    grader: Grader | None = field(init=False, default=None)
    """What grades answers, once the panel is open; None where no language model does."""
    readable: set[str] = field(default_factory=set)
    """Judges of whom a vote could be read, now or earlier in the run."""
    _unread: dict[str, list[str]] = field(init=False, default_factory=dict)  # by judge

    @property
    def devices(self) -> frozenset[str]:
        """The devices that the judges use on this machine."""
        return frozenset[str]().union(*(judge.source.devices for judge in self.judges))

    @property
    def concurrency(self) -> int:
        """How many completions to keep in judging, at most."""
        return max((judge.source.concurrency for judge in self.judges), default=1)

    async def open(self, stack: AsyncExitStack, *, logs: Path = Path("logs")) -> None:
        """Open the judges that are not open yet, to be closed with the stack. Raises `NoJudge`."""
        asks = {}
        for judge in self.judges:
            source = judge.source
            if judge.name not in self.models:
                try:
                    opened = await stack.enter_async_context(source.open(logs))
                except (ConfigError, ServerError) as error:
                    raise NoJudge(error) from error
                self.models[judge.name] = opened
            gate = gate_for(concurrency=source.concurrency, adapts=source.adapts)
            model = self.models[judge.name]
            asker = RetryingModel(model=model, policy=self.policy, role="judge", gate=gate)
            asker.answered |= {False} if judge.name in self.readable else set()
            asks[judge.name] = asker.complete
        if asks:
            identities = {judge.name: judge.identity for judge in self.judges}
            self.grader = grader_for(self.protocol, asks, identities=identities, cache=self.cache)
        self.is_open = True

    async def grade(self, record: CompletionRecord, *, answer: str) -> Grade:
        """Compare an answer with its reference; only for a panel with judges."""
        assert self.grader is not None  # noqa: S101 (opened before the first answer)
        grade = await self.grader.grade(record, answer=answer)
        for vote in grade.votes:
            self._heed(vote, record)
        return grade

    async def score(self, record: CompletionRecord) -> VerdictRecord:
        """Return the verdict on a completion; a judge that failed is an outcome."""
        assert self.is_open  # noqa: S101 (opened before the first verdict)
        grader = None if self.grader is None else self
        return await verdict_of(record, protocol=self.protocol, grader=grader)

    def _heed(self, vote: Vote, record: CompletionRecord) -> None:
        """Raise `ServerError` where nothing that a judge replied so far could be read."""
        unread = self._unread.setdefault(vote.judge, [])
        if vote.points is not None:
            self.readable.add(vote.judge)
        elif vote.failure is not None and vote.failure.error in UNREADABLE:
            said = " ".join((vote.reply or vote.failure.message).split())[:120]
            unread.append("" if record.restricted else f"; it wrote {said!r}")
            if self.gives_up and vote.judge not in self.readable and len(unread) >= _MOST_UNREAD:
                what = f"of its first {counted(len(unread), 'vote')} none can be read"
                raise ServerError(
                    f"judge {vote.judge}: {what}{''.join(unread[:2])}",
                    hint="name another judge, or let it write more: --set "
                    "judge.sampling.max_tokens=N; `medix-eval judge-check` measures a judge",
                )

    async def verdicts(
        self,
        records: Sequence[CompletionRecord],
        *,
        restricted: bool = False,
        told: Callable[[VerdictRecord], None] = lambda _: None,
    ) -> list[VerdictRecord]:
        """Return the verdicts on completions, in their order; each is told of as it comes."""
        found: dict[int, VerdictRecord] = {}

        async def judge(numbered: tuple[int, CompletionRecord]) -> None:
            number, record = numbered
            verdict = found[number] = await self.score(record)
            self.keep(verdict.votes, restricted=restricted)
            told(verdict)

        await each(enumerate(records), judge, limit=self.concurrency)
        return [found[number] for number in range(len(records))]

    def keep(self, votes: Sequence[Vote], *, restricted: bool) -> None:
        """Keep votes in the cache, if there is one; of restricted data no word of the judge."""
        if self.cache is not None:
            self.cache.keep(votes, restricted=restricted)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeChoice:
    """A judge as the user named it; without a name it is the protocol's own."""

    name: str | None
    flags: ModelFlags


def judge_sources(
    protocol: Protocol, choices: Sequence[JudgeChoice], *, out: Path
) -> tuple[ModelSource, ...]:
    """Return the judges that the protocol asks for; none if it uses no language model.

    Raises `ConfigError` for judges that do not fit the protocol, and for a prompt of it that cannot
    be filled.
    """
    spec = protocol.judge
    if isinstance(spec, RulesOnly):
        if any(choice.name for choice in choices):
            raise ConfigError(
                f"protocol {protocol.name!r} uses no judge, but --judge names one",
                hint="a language model judges with --protocol medix",
            )
        return ()
    check_prompts(protocol)
    if spec.jury == "majority" and len(choices) % 2 == 0:
        raise ConfigError(
            f"{len(choices)} judges can be split evenly, but this protocol uses their majority",
            hint="name an odd number of judges, or average them with --set judge.jury=mean",
        )
    most = spec.sampling.max_tokens
    return tuple(
        resolve_model(choice.name or spec.model, choice.flags, max_tokens=most, out=out)
        for choice in choices
    )


def resolve_judges(sources: Sequence[ModelSource]) -> tuple[ResolvedJudge, ...]:
    """Find out who the judges are; without one of them nothing is generated.

    Raises `NoJudge` for one that cannot be found, and `ConfigError` for judges that are the same or
    need the same GPU.
    """
    taken: Counter[str] = Counter()
    names: Counter[str] = Counter()
    known: dict[str, str] = {}
    judges = []
    for source in sources:
        try:
            identity = source.identity()
        except (ConfigError, ServerError) as error:
            raise NoJudge(error) from error
        names[source.name] += 1
        number = names[source.name]
        name = source.name if number == 1 else f"{source.name}#{number}"
        if (twin := known.setdefault(digest(identity), name)) != name:
            raise ConfigError(
                f"--judge {source.name} is the same model as {twin}",
                hint="for several votes of one judge use --set judge.question.repeats=3"
                " with a temperature",
            )
        taken.update(source.devices - _SHARED)
        judges.append(ResolvedJudge(name=name, source=source, identity=identity))
    if crowded := [device for device, count in taken.items() if count > 1]:
        raise ConfigError(
            f"the judges of a jury are asked at the same time, and several need GPU {crowded[0]}",
            hint="give each its own GPUs with --judge-gpus, once for every --judge, or serve "
            "them yourself and name them openai:NAME",
        )
    return tuple(judges)


def judging_manifest(
    protocol: Protocol,
    judges: Sequence[ResolvedJudge],
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
