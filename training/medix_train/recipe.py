"""A recipe: one YAML file that fixes a training, from the model to the last checkpoint.

How TRL trains is said in TRL's own words, in the `trl` section. Only the two sizes stand outside
it: they count prompts, whatever the number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from medix_eval.errors import ConfigError, UnknownName, first_error
from medix_eval.judging.protocol import EmbeddingSpec, LLMJudge, Protocol, load_protocol
from medix_eval.records import Frozen
from medix_eval.storage.bundled import bundled, read_mapping, set_key

_YAML = (".yaml", ".yml")
# Keys that may name a file or folder beside the recipe.
_BESIDE = ("model.path", "data.path", "data.template", "evaluation.include-path")
_KEYS = "keys are those of training/recipes/_medix-r1.yaml, such as trl.learning_rate"
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class ModelSection(Frozen):
    """What is trained."""

    path: str  # ORG/NAME, a folder, or a folder beside the recipe
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"  # on a GPU the arithmetic is bfloat16 anyway
    attn_implementation: str | None = None
    train_vision: bool = True
    min_pixels: Count | None = None
    max_pixels: Count | None = None


class DataSection(Frozen):
    """What it is trained on: the columns of `MBZUAI/medix-rl-data`."""

    path: str  # ORG/NAME, a folder of Parquet or JSONL, or phantom:N, N questions that are drawn
    revision: str | None = None
    split: str = "train"
    template: str | None = None  # a Jinja file around each question (it sees `prompt`)
    max_prompt_tokens: Count = 4352  # longer prompts are left out, and counted
    streaming: bool = False


class DynamicSampling(Frozen):
    """Draw other prompts for those whose group is uninformative."""

    # Groups with mixed verdicts; or, as published, with a mean reward in 0.01 to 0.99,
    # which keeps groups that are all wrong and well formed.
    keep: Literal["accuracy_spread", "published_mean"] = "accuracy_spread"
    rounds: Count = 20


class Weights(Frozen):
    """What each part of the reward is worth; together 1. The defaults are the published ones."""

    judge: Share = 0.5175
    embedding: Share = 0.3375
    format: Share = 0.10
    modality: Share = 0.045

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        if not math.isclose(total := sum(self.model_dump().values()), 1.0, abs_tol=1e-9):
            raise ValueError(f"weights sum to {total:g}, not to 1")
        return self


class FailureBudget(Frozen):
    """How many of the judge's answers may be missing, and how long it is waited for."""

    # Of the answers of one batch that were sent to the judge; these are left out of the step.
    tolerated_share: Share = 0.05
    # Total wait of one batch; each pause is twice the one before, up to a minute.
    patience_s: Annotated[float, Field(ge=0)] = 900.0


class JudgeServer(Frozen):
    """Where the judge is."""

    model: str | None = None  # as behind `medix-eval --judge`; by default the protocol's
    base_url: tuple[str, ...] = ()
    key_env: str | None = None
    concurrency: Count = 256  # more than the server runs at once, so it is never idle
    request_timeout_s: Annotated[float, Field(gt=0)] = 120.0
    local_hosts: tuple[str, ...] = ()  # that may see restricted rows, as `--local-host` says
    allow_egress: str | None = None  # why restricted rows may go to any host


class RewardSettings(Frozen):
    """Everything that fixes a reward: a recipe's `reward` section, or a YAML file of its own."""

    edition: Literal["medix", "medix-compat"] = "medix"
    weights: Weights = Weights()
    protocol: str = "reward"  # one YES/NO vote and an embedding: a name, or the path of a YAML
    set: tuple[str, ...] = ()  # changes to the protocol, such as embedding.threshold=0.7
    data_class: Literal["public", "gated", "dua"] = "public"  # `dua` rows stay on this machine
    graded: bool = False  # pay for similarity itself, not one or nothing at the threshold
    judge: JudgeServer = JudgeServer()
    failures: FailureBudget = FailureBudget()
    # Verdicts are shared with the harness's runs; null asks again each time.
    cache: Path | None = Path("results/.cache/verdicts.sqlite")
    # Batches between two sets of wrong answers that the judge should refuse; 0 sends none.
    canaries_every: Annotated[int, Field(ge=0)] = 10

    @model_validator(mode="after")
    def _graded_is_ours(self) -> Self:
        if self.graded and self.edition == "medix-compat":
            raise ValueError("graded similarity was not published: it needs edition: medix")
        return self

    def load_protocol(self) -> tuple[Protocol, LLMJudge, EmbeddingSpec]:
        """Return the protocol, its judge and its embedding; `ConfigError` if it lacks one."""
        protocol = load_protocol(self.protocol, overrides=self.set)
        name, judge, embedding = protocol.name, protocol.judge, protocol.embedding
        if not isinstance(judge, LLMJudge) or judge.question.num_votes != 1:
            raise ConfigError(f"protocol {name}: a reward takes exactly one judge vote")
        if embedding is None:
            raise ConfigError(f"protocol {name} has no embedding", hint="see judges/reward.yaml")
        return protocol, judge, embedding


class Sign(Frozen):
    """One sign of reward hacking that the monitor watches for."""

    name: str
    limit: float
    meaning: str
    when: Literal["new", "any"] = "new"
    logged: str = ""


_TABLE = read_mapping(bundled("recipes") / "_signs.yaml", what="table of signs")
SIGNS = tuple(Sign(name=name, **values) for name, values in _TABLE.items())


class MonitorSettings(Frozen):
    """What the monitor makes of a sign."""

    limits: dict[str, float] = Field(default_factory=dict)  # by name, other than in `_signs.yaml`
    in_a_row: Count = 3  # logged steps that a sign must last
    stop: bool = False  # end the training at a sign; otherwise only warn

    @field_validator("limits")
    @classmethod
    def _signs_exist(cls, limits: dict[str, float]) -> dict[str, float]:
        names = [sign.name for sign in SIGNS]
        if unknown := sorted(limits.keys() - set(names)):
            raise ValueError(f"{unknown[0]!r} is not a sign; choose from {', '.join(names)}")
        return limits


class Recipe(Frozen):
    """One training."""

    name: str
    summary: str
    model: ModelSection
    data: DataSection
    prompts_per_rollout: Count  # drawn, completed and rewarded together
    prompts_per_update: Count
    trl: dict[str, Any] = Field(default_factory=dict)  # what TRL's `GRPOConfig` takes
    lora: dict[str, Any] | None = None  # what PEFT's `LoraConfig` takes; null trains all weights
    dynamic_sampling: DynamicSampling | None = None
    # Completions that end within so many tokens of the cap lose up to 1 of their reward (DAPO).
    overlong_buffer: Count | None = None
    reward: RewardSettings = RewardSettings()
    monitor: MonitorSettings = MonitorSettings()
    evaluation: dict[str, Any] | None = None  # `medix-eval` flags, to evaluate every checkpoint by

    @property
    def updates_per_rollout(self) -> int:
        """Updates until the next completions are written."""
        return self.prompts_per_rollout // self.prompts_per_update

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.prompts_per_rollout % self.prompts_per_update:
            said = f"prompts_per_rollout {self.prompts_per_rollout} does not divide into updates of"
            raise ValueError(f"{said} {self.prompts_per_update} (prompts_per_update)")
        if self.data.streaming and self.dynamic_sampling:
            raise ValueError("dynamic_sampling draws rows by number, which a stream does not have")
        return self

    def batch_sizes(self, *, group: int, per_device: int, processes: int) -> dict[str, int]:
        """Split rollouts and updates among the processes, in TRL's words. Raises `ConfigError`."""
        update, forward = self.prompts_per_update * group, per_device * processes
        if update % forward:
            said = f"an update of {update} completions does not divide into {processes} processes"
            said += f" with {per_device} each (trl.per_device_train_batch_size)"
            raise ConfigError(said, hint=f"set it to a divisor of {update // processes or 1}")
        prompts = self.prompts_per_rollout
        if prompts % processes:
            said = (
                f"{prompts} prompts (prompts_per_rollout) do not divide into {processes} processes"
            )
            raise ConfigError(
                f"{said}: a group must stay in one", hint=f"use a multiple of {processes}"
            )
        steps = update // forward
        return {"generation_batch_size": prompts * group, "gradient_accumulation_steps": steps}


def recipe_names() -> tuple[str, ...]:
    """Names of the bundled recipes."""
    return tuple(sorted(path.stem for path in bundled("recipes").glob("[!_]*.yaml")))


def load_recipe(name: str, *, overrides: Iterable[str] = ()) -> Recipe:
    """Load a bundled recipe by name, or one of your own by the path of its YAML.

    Folders and files that it names beside itself become full paths. Raises `ConfigError`.
    """
    path = Path(name) if name.endswith(_YAML) else bundled("recipes") / f"{name}.yaml"
    if not path.is_file() and not name.endswith(_YAML):
        raise UnknownName("recipe", name, recipe_names(), listed_by="medix-train --list")
    raw = read_mapping(path, what="recipe")
    if (included := raw.pop("include", None)) is not None:
        raw = _merged(read_mapping(path.parent / str(included), what="recipe"), raw)
    for override in overrides:
        set_key(raw, override, hint=_KEYS)
    for section, key in (name.split(".") for name in _BESIDE):
        values = raw.get(section)
        if isinstance(values, dict) and (beside := path.parent / str(values.get(key))).exists():
            values[key] = str(beside.resolve())
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"recipe {path.name}: {first_error(error)}", hint=_KEYS) from error


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay a recipe over the one that it includes: sections are merged, all else is replaced."""
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged


def load_reward_settings(path: Path) -> RewardSettings:
    """Read a YAML file that holds these settings; a mistake is one line and exit code 2."""
    try:
        return RewardSettings.model_validate(read_mapping(path, what="reward"))
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_error(error)}") from error
