"""A protocol: one YAML that fixes everything that can affect a score.

Results of different protocol digests are different numbers, so overrides change the digest and
the name. The digest covers the text of every prompt and what it is for, not where its file lies.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_serializer, model_validator

from medix_eval.errors import ConfigError, UnknownName, first_error
from medix_eval.records import Frozen, Kind
from medix_eval.storage.bundled import bundled, read_mapping, set_key
from medix_eval.storage.digests import digest, without_folders

JUDGING_VERSION = 5
"""Goes up with any score-affecting change to answer extraction, rules or reply reading, with
`judges/rubric/replies.yaml` and `models/thinking.yaml`."""
_Mark = Annotated[str, Field(min_length=1)]


class SamplingSpec(Frozen):
    """Token limit and sampling, of the candidate or of the judge."""

    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0


class ImageSpec(Frozen):
    """How images travel: the stored bytes, or JPEG of quality 75 as the published code sends."""

    encoding: Literal["stored", "jpeg75"] = "stored"


class PromptSpec(Frozen):
    """A Jinja file around each prompt (it sees `prompt`), or none."""

    template: str | None = None


class AnswerSpec(Frozen):
    """What part of a completion is judged, and what needs no judge."""

    reading: Literal["strict", "published"] = "strict"
    """`published` judges all that follows the thinking, even if it is empty or was cut off."""
    refusals: tuple[str, ...] = ()
    """Patterns of a refusal, in lower case; in a file also the name of a YAML of them."""
    courtesies: tuple[str, ...] = ()
    """Patterns of what may stand beside a refusal: nothing else may, for it may be an answer."""
    thinking: tuple[tuple[_Mark, _Mark], ...] = ()
    """Openings and closings of thinking, of judges too, besides those of `rules/thinking.yaml`."""

    @field_validator("refusals", "courtesies")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern[:60]!r} is no regular expression: {error}") from error
        return patterns

    @field_validator("thinking", mode="before")
    @classmethod
    def _are_pairs(cls, pairs: Any) -> Any:
        if not isinstance(pairs, list | tuple) or not all(
            isinstance(pair, list | tuple) and len(pair) == len(("opening", "closing"))
            for pair in pairs
        ):
            raise ValueError("each must be an opening and a closing, as in [['<mind>', '</mind>']]")
        return pairs

    @model_serializer
    def _as_used(self) -> dict[str, Any]:
        # What a protocol does not use stays out of its digest, which 0.2 made without it.
        return {key: value for key, value in self if value or key == "refusals"}


class EmbeddingSpec(Frozen):
    """The embedding scorer of training: answer and reference are alike from `threshold` on."""

    model: str
    revision: str | None = None
    threshold: Annotated[float, Field(ge=-1, le=1)]


_SCALES = {"relation": (0, 1), "findings": (0, 5)}
"""Of the replies whose points `judges/rubric` fixes."""


class Rubric(Frozen):
    """How one kind of answer is graded: every prompt, asked `repeats` times, is one vote."""

    scale: tuple[int, int]
    labels: dict[str, int] = Field(default_factory=dict)
    """Words that the judge may reply, and their points; without any it replies JSON."""
    reply: Literal["score", "relation", "findings"] = "score"
    """What the JSON holds besides its score: a reason, then how the answer stands to its reference,
    or what is missing, contradicted and invented."""
    prompts: Annotated[tuple[str, ...], Field(min_length=1)]
    crossed: bool = False
    """Each prompt has two orders, by `answer_first`; which of them an answer meets, and which
    prompts come first, is drawn by its sample."""
    repeats: Annotated[int, Field(ge=1, le=25)] = 1
    decide: Literal["majority", "mean"]

    @property
    def num_votes(self) -> int:
        """How many votes there are, if all of them are asked."""
        return len(self.prompts) * self.repeats

    @model_validator(mode="after")
    def _can_be_graded(self) -> Self:
        lowest, highest = self.scale
        if lowest >= highest:
            raise ValueError(f"a scale from {lowest} to {highest} has no range")
        for word, points in self.labels.items():
            if not lowest <= points <= highest:
                raise ValueError(f"label {word!r} gives {points}, which is off the scale")
        if len({*self.prompts}) != len(self.prompts):
            raise ValueError("a prompt is listed twice: use repeats")
        if len({word.casefold() for word in self.labels}) != len(self.labels):
            raise ValueError("two labels differ only in case")
        if self.labels and self.reply != "score":
            raise ValueError(f"reply: {self.reply} is JSON, and labels are not")
        if self.scale != (fixed := _SCALES.get(self.reply, self.scale)):
            raise ValueError(f"reply: {self.reply} has the scale {[*fixed]}, not {[*self.scale]}")
        return self


Combining = Literal["majority", "mean"]
"""How the scores of several judges become one; reports are always averaged."""


class LLMJudge(Frozen):
    """Language models grade answers by independent votes."""

    scorer: Literal["judge"]
    model: str
    sampling: SamplingSpec
    thinking: str = "off"
    """`off`: asked not to think before it replies, in the way of its family, told by its name
    (`models/thinking.yaml`); a family's name: in its way; `as_is`: not asked."""

    @field_validator("thinking", mode="before")
    @classmethod
    def _is_off(cls, thinking: Any) -> Any:
        return "off" if thinking is False else thinking  # as YAML reads an unquoted off

    tries: Annotated[int, Field(ge=1, le=10)] = 2
    """How often one vote is asked for until its reply can be read."""
    jury: Combining = "majority"
    rules: Literal["beside", "first"] = "beside"
    """`first`: what the rules are certain of is settled, the judge gets the rest."""
    audit: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of what the rules settled that the judge is asked too, to see where they disagree."""
    question: Rubric
    report: Rubric

    def rubric(self, kind: Kind) -> Rubric:
        """Return the rubric for a kind of task."""
        return self.report if kind is Kind.REPORT else self.question

    def most_calls(self, kind: Kind) -> int:
        """Return how many calls one answer takes at most, if every reply can be read."""
        return self.rubric(kind).num_votes

    def prompt_files(self) -> tuple[str, ...]:
        """Return the prompt files, as named in the protocol."""
        return (*self.question.prompts, *self.report.prompts)

    @model_validator(mode="after")
    def _votes_can_differ(self) -> Self:
        if self.audit and self.rules != "first":
            raise ValueError("audit samples what the rules settle: it needs rules: first")
        if self.question.reply == "findings" or self.report.reply == "relation":
            raise ValueError("reply: findings is of reports, relation of questions")
        repeats = max(self.question.repeats, self.report.repeats)
        if repeats > 1 and not self.sampling.temperature:
            raise ValueError("repeats are identical at temperature 0; set sampling.temperature")
        return self


class DialogueJudge(Frozen):
    """The published way: one dialogue in which the judge is asked again what it thinks.

    Scores are read and counted as the published code does, its defects included.
    """

    scorer: Literal["dialogue"]
    model: str
    sampling: SamplingSpec
    turns: Annotated[int, Field(ge=2)]
    """Two of them must say 1 for an answer to count as right, so one alone could never."""
    jury: Combining = "majority"
    prompt_file: str
    report_prompt_file: str
    again_file: str
    """What every turn after the first says."""

    def most_calls(self, kind: Kind) -> int:
        """Return how many calls one answer takes."""
        return self.turns

    def prompt_files(self) -> tuple[str, ...]:
        """Return the prompt files, as named in the protocol."""
        return (self.prompt_file, self.report_prompt_file, self.again_file)


class RulesOnly(Frozen):
    """No language model: what the rules cannot decide is unjudged."""

    scorer: Literal["rules"]

    def most_calls(self, kind: Kind) -> int:
        """Return 0: no judge is asked."""
        return 0

    def prompt_files(self) -> tuple[str, ...]:
        """Return nothing: no judge is asked."""
        return ()


class Protocol(Frozen):
    """One file of `judges/`, with the text of its prompts."""

    name: str
    version: Annotated[int, Field(ge=1)]
    summary: str
    note: str = ""
    """A note that is shown with every number of this protocol."""
    generation: SamplingSpec
    images: ImageSpec = ImageSpec()
    prompt: PromptSpec = PromptSpec()
    answer: AnswerSpec = AnswerSpec()
    twins: str | None = None
    """Where a task `NAME_<twins>` exists, it is run in place of NAME."""
    judge: Annotated[LLMJudge | DialogueJudge | RulesOnly, Field(discriminator="scorer")]
    embedding: EmbeddingSpec | None = None
    """What training scores besides the judge; it affects no verdict."""
    harm: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """How severe a mistake is, by its error tag; it affects no score."""
    texts: dict[str, str] = Field(default_factory=dict, repr=False)
    """Text of every prompt file named above, by its name in the file."""

    def generation_settings(self) -> dict[str, Any]:
        """Everything here that can affect a completion."""
        template = self.prompt.template
        return {
            "generation": self.generation.model_dump(),
            "images": self.images.model_dump(),
            "prompt_template": self.texts[template] if template else None,
        }

    def judging_settings(self) -> dict[str, Any]:
        """Everything here that can affect a verdict, except the judge itself."""
        settings = {
            "answer": self.answer.model_dump(mode="json"),
            "judge": self.judge.model_dump(mode="json", exclude={"model"}),
            "prompts": self.judge_prompts,
            "twins": self.twins,
            "version": JUDGING_VERSION,
            **({"harm": self.harm} if self.harm else {}),
        }
        return by_role(settings)

    @property
    def prompt_names(self) -> dict[str, str]:
        """The name that votes carry, by the role of each prompt of the judge."""
        names = map(prompt_name, self.judge.prompt_files())
        return dict(zip(self.judging_settings()["prompts"], names, strict=True))

    @property
    def judge_prompts(self) -> dict[str, str]:
        """Text of every prompt of the judge, by its name in the file."""
        return {name: self.texts[name] for name in self.judge.prompt_files()}

    @property
    def digest(self) -> str:
        """Digest of all that the protocol fixes; equal digests mean comparable numbers."""
        return self.stamp()["digest"]

    def stamp(self, generation: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Return name, digest and note, as results carry them.

        Saved completions may have been made under other `generation` settings; then the result is
        neither this protocol's nor the other's, and says so.
        """
        own = self.generation_settings()
        made = own if generation is None else dict(generation)
        name = self.name if made == own else f"{self.name}+other-generation"
        note = {"note": self.note} if self.note else {}
        of_all = _digest(made, self.judging_settings(), self.embedding)
        return {"name": name, "digest": of_all, **note}


def prompt_name(file: str) -> str:
    """Return how a vote names its prompt: as the file is named, without folder and ending.

    >>> prompt_name("prompts/question_1.jinja")
    'question_1'
    """
    return file.rsplit("/", 1)[-1].removesuffix(".jinja")


def by_role(
    settings: Mapping[str, Any], name: Callable[[str, str], str] = lambda role, _: role
) -> dict[str, Any]:
    """Name each prompt in the settings of a judging by its role, where 0.1 kept a file's path.

    Roles are `question_1`, `report_1` and so on, or the key of a dialogue; `name` makes another
    name of a role and of the name so far. Settings of another shape, as they may come from
    anywhere, are returned as they are.
    """
    prompts, used = {}, set()

    def new(role: str, old: str) -> str:
        used.add(old)
        prompts[name(role, old)] = settings["prompts"][old]
        return name(role, old)

    judge: Any = None
    try:
        judge = copy.deepcopy(settings["judge"])
        for kind in ("question", "report"):
            if kind in judge:
                listed = enumerate(judge[kind]["prompts"], 1)
                judge[kind]["prompts"] = [new(f"{kind}_{number}", old) for number, old in listed]
        for role in ("prompt_file", "report_prompt_file", "again_file"):
            if role in judge:
                judge[role] = new(role, judge[role])
        is_whole = used == settings["prompts"].keys()
    except (AttributeError, KeyError, TypeError):
        is_whole = False
    return {**settings, "judge": judge, "prompts": prompts} if is_whole else dict(settings)


def stamp_now(
    stamp: Mapping[str, str], *, generation: Mapping[str, Any], judging: Mapping[str, Any]
) -> dict[str, str]:
    """Return the stamp that this version gives to what a run keeps of its protocol.

    A digest of 0.1 held paths. It is replaced only if it is that of these very settings; the
    embedding, which no run keeps, must then be that of a bundled protocol.
    """
    settings = {key: value for key, value in judging.items() if key != "judges"}
    made = {key: generation.get(key) for key in ("generation", "images", "prompt_template")}
    now = by_role(settings)
    if now != settings:
        for embedding in (None, *_embeddings()):
            if stamp.get("digest") == _digest(made, settings, embedding):
                return {**stamp, "digest": _digest(made, now, embedding)}
    return dict(stamp)


def _digest(
    made: Mapping[str, Any], judging: Mapping[str, Any], embedding: EmbeddingSpec | None
) -> str:
    return digest({**made, **judging, "embedding": embedding.model_dump() if embedding else None})


@cache
def _embeddings() -> tuple[EmbeddingSpec, ...]:
    found = [load_protocol(name).embedding for name in protocol_names()]
    return tuple(one for one in found if one is not None)


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
        raise UnknownName("protocol", name, protocol_names())
    raw = read_mapping(path, what="protocol")
    changed = list(overrides)
    for override in changed:
        set_key(raw, override, hint=_KEYS)
    answer: Any = raw.get("answer")
    for key in ("refusals", "courtesies") if isinstance(answer, dict) else ():
        if isinstance(named := answer.get(key), str):  # the patterns themselves are in the digest
            places = (path.parent / named, Path(named), bundled("judges") / named)
            file = next(filter(Path.is_file, places), places[0])
            lists = read_mapping(file, what=f"list of {key}").values()
            answer[key] = [one for of in lists for one in (of if isinstance(of, list) else [of])]
    if changed:
        raw["name"] = "+".join([str(raw.get("name")), *map(without_folders, changed)])
    try:
        protocol = Protocol.model_validate(raw)
    except ValidationError as error:
        # Without the member of the judge's union, which pydantic names too.
        said = re.sub(r"^judge\.(judge|dialogue|rules)\b", "judge", first_error(error))
        raise ConfigError(f"protocol {path.name}: {said}", hint=_KEYS) from error
    return protocol.model_copy(update={"texts": _read_prompts(protocol, folder=path.parent)})


_KEYS = "keys are those of judges/medix.yaml, such as generation.max_tokens or judge.tries"


_INCLUDE = re.compile(r'\{% include "([^"]+)" %\}')
"""What several prompts quote, by its place beside them; a digest covers the whole text."""


def _with_quotes(path: Path) -> str:
    text, folder = path.read_text(encoding="utf-8"), path.parent
    return _INCLUDE.sub(lambda one: (folder / one[1]).read_text(encoding="utf-8").rstrip(), text)


def _read_prompts(protocol: Protocol, *, folder: Path) -> dict[str, str]:
    """Read every prompt file; a path is looked for beside the protocol, then as given."""
    texts = {}
    template = [protocol.prompt.template] if protocol.prompt.template else []
    for name in [*template, *protocol.judge.prompt_files()]:
        found = next((path for path in (folder / name, Path(name)) if path.is_file()), None)
        if found is None:
            raise ConfigError(f"protocol {protocol.name}: prompt file {name!r} does not exist")
        try:
            texts[name] = _with_quotes(found)
        except UnicodeDecodeError as error:
            said = f"prompt file {found} is not UTF-8"
            raise ConfigError(said, hint="save it as UTF-8") from error
        except OSError as error:
            said = f"prompt file {found} includes {error.filename}: {error.strerror}"
            raise ConfigError(said) from error
    return texts
