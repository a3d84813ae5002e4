"""A protocol: one YAML that fixes everything that can move a score.

Results of different protocol digests are different numbers, so overrides change the digest and
the name. The digest covers the text of every prompt, not its path.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medix_eval.bundled import bundled
from medix_eval.digests import digest
from medix_eval.errors import ConfigError, UnknownName
from medix_eval.records import Kind

JUDGING_VERSION = 1
"""Goes up with any change to answer extraction, rules or reply reading that can move a score."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SamplingSpec(_Spec):
    """Token limit and sampling, of the candidate or of the judge."""

    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: int = 0


class ImageSpec(_Spec):
    """How images travel: the stored bytes, or JPEG of quality 75 as the published code sends."""

    encoding: Literal["stored", "jpeg75"] = "stored"


class PromptSpec(_Spec):
    """A Jinja file around each prompt (it sees `prompt`), or none."""

    template: str | None = None


class AnswerSpec(_Spec):
    """What counts as a refusal: patterns that must match the whole answer, in lower case."""

    refusals: tuple[str, ...] = ()


class Rubric(_Spec):
    """How one kind of answer is graded."""

    scale: tuple[int, int]
    prompts: Annotated[tuple[str, ...], Field(min_length=1)]
    decide: Literal["majority", "mean"]


class LLMJudge(_Spec):
    """A language model grades every answer."""

    scorer: Literal["judge"]
    model: str
    sampling: SamplingSpec
    tries: Annotated[int, Field(ge=1, le=10)] = 2
    """How often one vote is asked for until its reply can be read."""
    question: Rubric
    report: Rubric

    def rubric(self, kind: Kind) -> Rubric:
        """Return the rubric for a kind of task."""
        return self.report if kind is Kind.REPORT else self.question


class RulesOnly(_Spec):
    """No language model: what the rules cannot decide is unjudged."""

    scorer: Literal["rules"]


class Protocol(_Spec):
    """One file of `judges/`, with the text of its prompts."""

    name: str
    version: Annotated[int, Field(ge=1)]
    summary: str
    generation: SamplingSpec
    images: ImageSpec = ImageSpec()
    prompt: PromptSpec = PromptSpec()
    answer: AnswerSpec = AnswerSpec()
    judge: Annotated[LLMJudge | RulesOnly, Field(discriminator="scorer")]
    texts: dict[str, str] = Field(default_factory=dict, repr=False)
    """Text of every prompt file named above, by its name in the file."""

    def generation_settings(self) -> dict[str, Any]:
        """Everything here that can move a completion."""
        template = self.prompt.template
        return {
            "generation": self.generation.model_dump(),
            "images": self.images.model_dump(),
            "prompt_template": self.texts[template] if template else None,
        }

    def judging_settings(self) -> dict[str, Any]:
        """Everything here that can move a verdict, but the judge itself."""
        settings = self.judge.model_dump(mode="json", exclude={"model"})
        return {
            "answer": self.answer.model_dump(mode="json"),
            "judge": settings,
            "prompts": {name: self.texts[name] for name in _prompt_names(self)},
            "version": JUDGING_VERSION,
        }

    @property
    def digest(self) -> str:
        """Digest of all that the protocol fixes; equal digests mean comparable numbers."""
        return digest({**self.generation_settings(), **self.judging_settings()})


def protocol_names() -> tuple[str, ...]:
    """Names of the bundled protocols."""
    return tuple(sorted(path.stem for path in bundled("judges").glob("*.yaml")))


def load_protocol(name: str, *, overrides: Iterable[str] = ()) -> Protocol:
    """Load a bundled protocol by name, or one of your own by the path of its YAML.

    `overrides` are `key=value` texts such as `generation.max_tokens=8192`. Raises `ConfigError`
    for an unknown name, an unknown key, a value of the wrong type or a missing prompt file.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else bundled("judges") / f"{name}.yaml"
    if not path.is_file():
        if path.suffix in {".yaml", ".yml"} and name.endswith(path.suffix):
            raise ConfigError(f"protocol file {name} does not exist")
        raise UnknownName("protocol", name, protocol_names(), listed_by="ls judges/*.yaml")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} is not a protocol: expected keys and values")
    changed = list(overrides)
    for override in changed:
        _apply(raw, override)
    if changed:
        raw["name"] = "+".join([str(raw.get("name")), *changed])
    try:
        protocol = Protocol.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"protocol {path.name}: {_first_error(error)}", hint=_KEYS) from error
    return protocol.model_copy(update={"texts": _read_prompts(protocol, folder=path.parent)})


_KEYS = "keys are those of judges/medix.yaml, such as generation.max_tokens or judge.tries"


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one dotted key; whether the key exists is the schema's to say."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not key=value", hint=_KEYS)
    *parents, last = key.split(".")
    at: Any = raw
    for parent in parents:
        at = at.setdefault(parent, {}) if isinstance(at, dict) else None
        if not isinstance(at, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} has no keys below it", hint=_KEYS)
    try:
        at[last] = yaml.load(value, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not YAML") from error


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    at = [str(part) for part in first["loc"]]
    if at[:1] == ["judge"] and at[1:2] in (["judge"], ["rules"]):
        del at[1]  # pydantic names the union's member too
    where = ".".join(at)
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}"
    return f"{where}: {first['msg']}"


def _prompt_names(protocol: Protocol) -> list[str]:
    """Names of the prompt files that the judge reads."""
    judge = protocol.judge
    if isinstance(judge, RulesOnly):
        return []
    return [*judge.question.prompts, *judge.report.prompts]


def _read_prompts(protocol: Protocol, *, folder: Path) -> dict[str, str]:
    """Read every prompt file; a path is looked for beside the protocol, then as given."""
    texts = {}
    template = [protocol.prompt.template] if protocol.prompt.template else []
    for name in [*template, *_prompt_names(protocol)]:
        found = next((path for path in (folder / name, Path(name)) if path.is_file()), None)
        if found is None:
            raise ConfigError(f"protocol {protocol.name}: prompt file {name!r} does not exist")
        texts[name] = found.read_text(encoding="utf-8")
    return texts
