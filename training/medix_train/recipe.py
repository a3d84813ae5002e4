"""A recipe: one YAML file that fixes a training, from the model to the last checkpoint.

Its sizes are those of the published runs: prompts per rollout and per update, whatever the number
of processes. How often a device runs forward follows from them, and what does not divide is
refused before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from medix_eval.bundled import bundled
from medix_eval.errors import ConfigError, UnknownName
from medix_eval.yaml_settings import first_error, read_mapping, set_key
from medix_train.monitor import MonitorSettings
from medix_train.reward_settings import RewardSettings, Section, Share

_BESIDE = (("model", "path"), ("data", "path"), ("data", "template"), ("evaluation", "include"))
"""Keys that may name a file or folder beside the recipe."""
_KEYS = "keys are those of training/recipes/_medix-r1.yaml, such as rollout.prompts"
Count = Annotated[int, Field(ge=1)]


class LoRA(Section):
    """Train small matrices beside the weights, in place of the weights."""

    rank: Count = 64
    alpha: Count = 128
    dropout: Share = 0.0
    targets: str | tuple[str, ...] = "all-linear"


class ModelSection(Section):
    """What is trained."""

    path: str
    """`ORG/NAME`, a folder, or a folder beside the recipe."""
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the trained weights; on a GPU the arithmetic is bfloat16 either way."""
    attention: str | None = None
    lora: LoRA | None = None
    train_vision: bool = True
    gradient_checkpointing: bool = True
    min_pixels: Count | None = None
    max_pixels: Count | None = None


class DataSection(Section):
    """What it is trained on: the columns of `MBZUAI/medix-rl-data`."""

    path: str
    """`ORG/NAME`, a folder of Parquet or JSONL, or `phantom:N`: N questions that are drawn."""
    revision: str | None = None
    split: str = "train"
    template: str | None = None
    """A Jinja file around each question (it sees `prompt`), beside the recipe."""
    max_prompt_tokens: Count = 4352
    """Longer prompts are left out, and counted."""
    streaming: bool = False


class Engine(Section):
    """What writes the completions."""

    kind: Literal["transformers", "vllm-colocate", "vllm-server"] = "transformers"
    tensor_parallel: Count = 1
    memory: Share = 0.3
    """Share of a GPU that a colocated vLLM takes."""
    sleep: bool = False
    """Give that memory back while weights are updated."""
    url: str | None = None

    @model_validator(mode="after")
    def _url_goes_with_a_server(self) -> Self:
        if (self.kind == "vllm-server") != (self.url is not None):
            raise ValueError("url goes with kind: vllm-server, and only with it")
        return self


class RolloutSection(Section):
    """One rollout: prompts are drawn and completed, then rewarded."""

    prompts: Count
    completions: Annotated[int, Field(ge=2)]
    """Of each prompt: one group, whose mean is the baseline."""
    max_tokens: Count
    """The cap on a completion's length."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    engine: Engine = Engine()


class DynamicSampling(Section):
    """Draw other prompts in place of those whose group says nothing."""

    keep: Literal["accuracy_spread", "published_mean"] = "accuracy_spread"
    """Groups in which the judge was of two minds; or, as published, a mean reward in 0.01 to 0.99,
    which keeps groups that are all wrong and well formed."""
    rounds: Count = 20


class Overlong(Section):
    """Take off up to `penalty` from completions that end within `buffer` tokens of the cap."""

    buffer: Count
    penalty: Annotated[float, Field(gt=0)] = 1.0


class AlgorithmSection(Section):
    """The loss: GRPO, DAPO, GSPO and Dr. GRPO are points of this space."""

    ratio: Literal["token", "sequence"] = "token"
    """Importance ratio of each token, or of the whole completion (GSPO)."""
    mean_over: Literal["tokens", "completions", "constant"] = "tokens"
    """What the loss is averaged over: DAPO, GRPO and GSPO, Dr. GRPO."""
    scale: Literal["group", "batch", "none"] = "group"
    """What an advantage is divided by: the spread of its group (GRPO), or nothing (Dr. GRPO)."""
    clip: tuple[float, float] = (0.2, 0.2)
    dual_clip: float | None = None
    kl: Annotated[float, Field(ge=0)] = 0.0
    dynamic_sampling: DynamicSampling | None = None
    overlong: Overlong | None = None
    drop_truncated: bool = False
    """Leave completions that hit the cap out of the loss."""


class OptimiserSection(Section):
    """How the weights are updated."""

    name: str = "adamw_torch_fused"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-6
    schedule: str = "constant"
    warmup_updates: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    prompts_per_update: Count
    per_device: Count = 1
    """Completions in one forward pass of one process."""


class LengthSection(Section):
    """How long: passes over the data, or a number of rollouts."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    rollouts: Count | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.epochs is None) == (self.rollouts is None):
            raise ValueError("give epochs or rollouts, one of both")
        return self


class CheckpointSection(Section):
    """When weights are saved; always where a rollout ends, so that a resumed run is the same."""

    every: Count = 5
    """Rollouts."""
    keep: Count = 3
    """The best one is kept beside these."""


class EvaluationSection(Section):
    """The harness on a held-out group, at every checkpoint."""

    tasks: tuple[str, ...]
    include: str | None = None
    """A folder of task files, beside the recipe."""
    protocol: str = "rules"
    set: tuple[str, ...] = ()
    judge: str | None = None
    judge_base_url: tuple[str, ...] = ()
    limit: Count | None = None
    backend: Literal["vllm", "hf"] = "hf"
    gpus: str | None = None


class Recipe(Section):
    """One training."""

    name: str
    summary: str
    seed: int = 0
    model: ModelSection
    data: DataSection
    rollout: RolloutSection
    algorithm: AlgorithmSection = AlgorithmSection()
    optimiser: OptimiserSection
    length: LengthSection
    checkpoints: CheckpointSection = CheckpointSection()
    reward: RewardSettings = RewardSettings()
    monitor: MonitorSettings = MonitorSettings()
    evaluation: EvaluationSection | None = None
    trl: dict[str, Any] = Field(default_factory=dict)
    """Anything else that TRL's `GRPOConfig` takes; it is refused where a key above decides it."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.rollout.prompts % self.optimiser.prompts_per_update:
            raise ValueError(
                f"rollout.prompts {self.rollout.prompts} does not divide into updates of "
                f"{self.optimiser.prompts_per_update} (optimiser.prompts_per_update)"
            )
        if self.data.streaming and self.algorithm.dynamic_sampling:
            raise ValueError("dynamic_sampling draws rows by number, which a stream has not")
        if self.data.streaming and self.length.rollouts is None:
            raise ValueError("a stream has no length: give length.rollouts")
        overlong = self.algorithm.overlong
        if overlong and overlong.buffer >= self.rollout.max_tokens:
            raise ValueError(
                f"algorithm.overlong.buffer {overlong.buffer} leaves nothing below "
                f"rollout.max_tokens {self.rollout.max_tokens}"
            )
        return self

    def batches(self, *, processes: int) -> Batches:
        """Split rollouts and updates among the processes. Raises `ConfigError`."""
        group, passes = self.rollout.completions, self.optimiser.per_device * processes
        update = self.optimiser.prompts_per_update * group
        if update % passes:
            raise ConfigError(
                f"an update of {update} completions does not divide into {processes} processes "
                f"with {self.optimiser.per_device} each (optimiser.per_device)",
                hint=f"per_device can be a divisor of {update // processes or 1}",
            )
        if self.rollout.prompts % processes:
            raise ConfigError(
                f"{self.rollout.prompts} prompts (rollout.prompts) do not divide into {processes} "
                "processes: a group must stay in one",
                hint=f"a multiple of {processes}",
            )
        return Batches(
            forwards_per_rollout=self.rollout.prompts * group // passes,
            forwards_per_update=update // passes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """What one process does."""

    forwards_per_rollout: int
    forwards_per_update: int

    @property
    def updates_per_rollout(self) -> int:
        """Updates until the next completions are written."""
        return self.forwards_per_rollout // self.forwards_per_update


def recipe_names() -> tuple[str, ...]:
    """Names of the bundled recipes."""
    files = bundled("recipes").glob("*.yaml")
    return tuple(sorted(path.stem for path in files if not path.stem.startswith("_")))


def load_recipe(name: str, *, overrides: Iterable[str] = ()) -> Recipe:
    """Load a bundled recipe by name, or one of your own by the path of its YAML.

    Folders and files that it names beside itself become full paths. Raises `ConfigError`.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else bundled("recipes") / f"{name}.yaml"
    if not path.is_file() and not name.endswith((".yaml", ".yml")):
        raise UnknownName("recipe", name, recipe_names(), listed_by="medix-train --list")
    raw = _read(path)
    for override in overrides:
        set_key(raw, override, hint=_KEYS)
    for section, key in _BESIDE:
        values = raw.get(section)
        if isinstance(values, dict) and (path.parent / str(values.get(key))).exists():
            values[key] = str((path.parent / str(values[key])).resolve())
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"recipe {path.name}: {first_error(error)}", hint=_KEYS) from error


def _read(path: Path) -> dict[str, Any]:
    """Read a recipe over the one that it includes: sections are merged, all else is replaced."""
    raw = read_mapping(path, what="recipe")
    included = raw.pop("include", None)
    if included is None:
        return raw
    below = read_mapping(path.parent / str(included), what="recipe")
    if "include" in below:
        raise ConfigError(f"recipe {included} is included, and cannot include another")
    return _merged(below, raw)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = below.get(key)
        if isinstance(under, dict) and isinstance(value, dict):
            merged[key] = _merged(under, value)
        else:
            merged[key] = value
    return merged
