"""What a recipe says of its rewards: its `reward` section, or a YAML file of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medix_eval.errors import ConfigError, first_error
from medix_eval.judging.protocol import EmbeddingSpec, LLMJudge, Protocol, load_protocol
from medix_eval.models.resolve import ModelFlags
from medix_eval.storage.bundled import read_mapping

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a recipe: an unknown key is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Weights(Section):
    """What each part of the reward is worth; together 1. The defaults are the published ones."""

    judge: Share = 0.5175
    embedding: Share = 0.3375
    format: Share = 0.10
    modality: Share = 0.045

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.judge + self.embedding + self.format + self.modality
        if not math.isclose(total, 1.0, abs_tol=1e-9):
            raise ValueError(f"weights sum to {total:g}, not to 1")
        return self

    def total(self, *, judge: float | None, others: Mapping[str, float]) -> float | None:
        """Weigh the parts; without a verdict there is no reward."""
        if judge is None:
            return None
        earned: float = self.judge * judge
        for name, value in others.items():
            earned += getattr(self, name) * value
        return earned


class FailureBudget(Section):
    """How much of a judge's silence is borne, and how long it is waited for."""

    tolerated_share: Share = 0.05
    """Of the answers of one batch that were sent to the judge; these are left out of the step."""
    patience_s: Annotated[float, Field(ge=0)] = 900.0
    """Pauses of one batch, all together; each is twice the one before, up to a minute."""


class JudgeServer(Section):
    """Where the judge is."""

    model: str | None = None
    """Named as behind `medix-eval --judge`; by default the protocol's."""
    base_url: tuple[str, ...] = ()
    key_env: str | None = None
    concurrency: Annotated[int, Field(ge=1)] = 256
    """Requests in flight: more than the server works on at once, so that it never waits for us."""
    request_timeout_s: Annotated[float, Field(gt=0)] = 120.0

    def flags(self) -> ModelFlags:
        """Return what the harness calls the judge's flags."""
        return ModelFlags(
            role="judge",
            base_urls=self.base_url,
            key_env=self.key_env,
            concurrency=self.concurrency,
            request_timeout_s=self.request_timeout_s,
        )


class RewardSettings(Section):
    """Everything that fixes a reward."""

    edition: Literal["medix", "medix-compat"] = "medix"
    weights: Weights = Weights()
    protocol: str = "reward"
    """A protocol with one YES/NO vote and an embedding, by its name or the path of its YAML."""
    set: tuple[str, ...] = ()
    """Changes to the protocol, such as `embedding.threshold=0.7`."""
    graded: bool = False
    """Pay for similarity itself, in place of one or nothing at the threshold."""
    judge: JudgeServer = JudgeServer()
    failures: FailureBudget = FailureBudget()
    cache: Path | None = Path("results/.cache/verdicts.sqlite")
    """Verdicts are shared with the harness's runs; null asks anew each time."""
    canaries_every: Annotated[int, Field(ge=0)] = 10
    """Batches between two sets of wrong answers that the judge should refuse; 0 sends none."""

    @model_validator(mode="after")
    def _graded_is_ours(self) -> Self:
        if self.graded and self.edition == "medix-compat":
            raise ValueError("graded similarity was not published: it goes with edition: medix")
        return self

    def load_protocol(self) -> tuple[Protocol, LLMJudge, EmbeddingSpec]:
        """Return the protocol, its judge and its embedding; `ConfigError` if it lacks one."""
        protocol = load_protocol(self.protocol, overrides=self.set)
        judge = protocol.judge
        if not isinstance(judge, LLMJudge) or judge.question.num_votes != 1:
            raise ConfigError(f"protocol {protocol.name}: a reward takes exactly one judge vote")
        if protocol.embedding is None:
            raise ConfigError(
                f"protocol {protocol.name} has no embedding", hint="see judges/reward.yaml"
            )
        return protocol, judge, protocol.embedding


def load_reward_settings(path: Path) -> RewardSettings:
    """Read a YAML file that holds these settings; a mistake is one line and exit code 2."""
    try:
        return RewardSettings.model_validate(read_mapping(path, what="reward"))
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_error(error)}") from error
