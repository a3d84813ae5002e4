"""Who judges: from the names on the command line, or the protocol's own, to judges with identity.

Everything is found out before the candidate answers anything: without its judges a run would only
cost answers that nobody grades.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix_eval.errors import ConfigError, NoJudge, ServerError
from medix_eval.evaluation.judging_stage import Appointed
from medix_eval.judging.protocol import Protocol, RulesOnly
from medix_eval.models.chat import ModelSource
from medix_eval.models.resolve import ModelFlags, resolve_model
from medix_eval.results.store import JudgingManifest
from medix_eval.storage.digests import digest

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
        tasks=list(tasks),
    )
