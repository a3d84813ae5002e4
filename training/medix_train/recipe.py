"""A recipe: one YAML file that fixes a training, from the model to the last checkpoint.

How TRL trains is said in TRL's own words, in the `trl` section. Only the two sizes stand outside
it: they count prompts, whatever the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from medix_eval.errors import ConfigError, UnknownName, first_error
from medix_eval.storage.bundled import bundled, read_mapping, set_key
from medix_train.monitor import MonitorSettings
from medix_train.reward_settings import RewardSettings, Section

_BESIDE = (
    ("model", "path"),
    ("data", "path"),
    ("data", "template"),
    ("evaluation", "include-path"),
)
"""Keys that may name a file or folder beside the recipe."""
_KEYS = "keys are those of training/recipes/_medix-r1.yaml, such as trl.learning_rate"
Count = Annotated[int, Field(ge=1)]


class ModelSection(Section):
    """What is trained."""

    path: str
    """`ORG/NAME`, a folder, or a folder beside the recipe."""
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the trained weights; on a GPU the arithmetic is bfloat16 either way."""
    attn_implementation: str | None = None
    train_vision: bool = True
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


class DynamicSampling(Section):
    """Draw other prompts in place of those whose group says nothing."""

    keep: Literal["accuracy_spread", "published_mean"] = "accuracy_spread"
    """Groups in which the judge was of two minds; or, as published, a mean reward in 0.01 to 0.99,
    which keeps groups that are all wrong and well formed."""
    rounds: Count = 20


class Recipe(Section):
    """One training."""

    name: str
    summary: str
    model: ModelSection
    data: DataSection
    prompts_per_rollout: Count
    """Drawn, completed and rewarded together."""
    prompts_per_update: Count
    trl: dict[str, Any] = Field(default_factory=dict)
    """What TRL's `GRPOConfig` takes."""
    lora: dict[str, Any] | None = None
    """What PEFT's `LoraConfig` takes; without it the weights themselves are trained."""
    dynamic_sampling: DynamicSampling | None = None
    overlong_buffer: Count | None = None
    """Completions that end within so many tokens of the cap lose up to 1 of their reward (DAPO)."""
    reward: RewardSettings = RewardSettings()
    monitor: MonitorSettings = MonitorSettings()
    evaluation: dict[str, Any] | None = None
    """Flags of `medix-eval`, which evaluates every checkpoint."""

    @property
    def updates_per_rollout(self) -> int:
        """Updates until the next completions are written."""
        return self.prompts_per_rollout // self.prompts_per_update

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.prompts_per_rollout % self.prompts_per_update:
            raise ValueError(
                f"prompts_per_rollout {self.prompts_per_rollout} does not divide into updates of "
                f"{self.prompts_per_update} (prompts_per_update)"
            )
        if self.data.streaming and self.dynamic_sampling:
            raise ValueError("dynamic_sampling draws rows by number, which a stream has not")
        return self

    def batch_sizes(self, *, group: int, per_device: int, processes: int) -> dict[str, int]:
        """Split rollouts and updates among the processes, in TRL's words. Raises `ConfigError`."""
        update, forward = self.prompts_per_update * group, per_device * processes
        if update % forward:
            raise ConfigError(
                f"an update of {update} completions does not divide into {processes} processes "
                f"with {per_device} each (trl.per_device_train_batch_size)",
                hint=f"it can be a divisor of {update // processes or 1}",
            )
        if self.prompts_per_rollout % processes:
            raise ConfigError(
                f"{self.prompts_per_rollout} prompts (prompts_per_rollout) do not divide into "
                f"{processes} processes: a group must stay in one",
                hint=f"a multiple of {processes}",
            )
        return {
            "generation_batch_size": self.prompts_per_rollout * group,
            "gradient_accumulation_steps": update // forward,
        }


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
    return _merged(read_mapping(path.parent / str(included), what="recipe"), raw)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = below | above
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged
