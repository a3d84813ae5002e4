"""Controls: the same questions with one thing perturbed, to see what a score depends on.

A control is a function from a sample to a sample. Its id stays, so each answer can be compared with
the answer to the original question. A new control is one function and its entry in `KINDS`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

from medix_eval.errors import BadRow, ConfigError, UnknownName
from medix_eval.records import IMAGE_MARK, Kind, Sample
from medix_eval.results.comparison import compare_runs
from medix_eval.results.scores import ControlEffect
from medix_eval.results.store import JudgedRun, folder_of, read_run, selection_at
from medix_eval.storage.digests import canonical, digest
from medix_eval.storage.images import as_rgb, damage

if TYPE_CHECKING:
    from medix_eval.data.lm_task import MedixTask
    from medix_eval.data.tasks import TaskSettings


Disturb = Callable[[Sample], Sample]
Disturbed = Literal["images", "options", "normal report"]
_LOG = logging.getLogger(__name__)
_GREY = (127, 127, 127)
_DRAWS = 64
"""Rows that are looked at, at random, for another image."""
_MODALITY = "modality"
_LETTERS = re.compile(
    r"(?:\b(?:[A-J]|(?i:both|either|neither|only|options?|choices?|answers?|all|none|of|and|or|nor"
    r"|but|not|the|is|are|correct|true))\b|[\s,.()&+/])+"
)
"""An option of nothing but letters and little words: "Both A and C"."""
_ENDS_LIST = re.compile(r"\b(?:above|of these|of them|of the options)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Control:
    """One disturbance, as `--control` names it; `UnknownName` for one that is not in `KINDS`."""

    kind: str
    number: int = 1
    """Which of several variants."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName("control", self.kind, KINDS, listed_by="medix-eval --help")

    @classmethod
    def named(cls, text: str) -> Self:
        """Read `blank-image` or `shuffle-options:2`. Raises `ConfigError`."""
        kind, colon, number = text.partition(":")
        control = cls(kind)
        if not colon:
            return control
        if kind != "shuffle-options" or not number.isdecimal() or int(number) < 1:
            raise ConfigError(
                f"--control {text} is invalid", hint="only shuffle-options:K takes a number, from 1"
            )
        return cls(kind, int(number))

    @property
    def name(self) -> str:
        """How results name it."""
        return self.kind if self.number == 1 else f"{self.kind}:{self.number}"

    @property
    def disturbs(self) -> Disturbed:
        """What of a sample is not as it was."""
        return KINDS[self.kind].disturbs

    def fits(self, task: TaskSettings) -> bool:
        """Whether a task has what it perturbs."""
        if self.disturbs == "images":
            return task.modality == "image"
        if self.disturbs == "normal report":
            return task.normal_report is not None
        return task.kind is Kind.MULTIPLE_CHOICE


_FOR = {
    "normal report": "reports, such as mimic_cxr_report_generation, and `normal_report` in the file"
}


def refuse_unfit(control: Control, tasks: Mapping[str, TaskSettings]) -> None:
    """Refuse tasks on which a control would change nothing."""
    unfit = [name for name, task in tasks.items() if not control.fits(task)]
    if unfit:
        what = control.disturbs
        fit = ",".join(name for name in tasks if name not in unfit)
        raise ConfigError(
            f"--control {control.name}: no {what} in {', '.join(unfit)}",
            hint=f"--tasks {fit}" if fit else f"it is for {_FOR.get(what, f'tasks with {what}')}",
        )


def disturbing(controls: Iterable[Control], task: MedixTask) -> Disturb:
    """Return a function that applies the controls to the samples of a task.

    It raises `BadRow` for a sample that cannot be perturbed: it is skipped, as an answer to
    the original question would hide what the others show.
    """
    steps = [KINDS[control.kind].step(task, control.number) for control in controls]

    def disturb(sample: Sample) -> Sample:
        for step in steps:
            sample = step(sample)
        return sample

    return disturb


def _without_images(sample: Sample) -> Sample:
    if not sample.images:
        return sample
    text = sample.prompt.replace(IMAGE_MARK, "").strip("\n")
    before = sample.prompt[: sample.question_at].replace(IMAGE_MARK, "").lstrip("\n")
    return replace(sample, prompt=text, question_at=len(before), images=())


def _with_blanks(sample: Sample) -> Sample:
    return replace(sample, images=tuple(_grey(as_rgb(image).size) for image in sample.images))


class _Swap:
    """Takes the images of another row: of the same modality, where the task file tells it."""

    def __init__(self, task: MedixTask) -> None:
        self._task = task
        self._clusters = task.cluster_values()
        self._modalities: list[str] | None = None
        self._alike: defaultdict[str, list[int]] = defaultdict(list)
        if _MODALITY in task.settings.slices:
            self._modalities = list(map(str, task.rows[_MODALITY]))
            for row, modality in enumerate(self._modalities):
                self._alike[modality].append(row)

    def __call__(self, sample: Sample) -> Sample:
        own = frozenset(map(_sha256, sample.images))
        for row in self._drawn(sample):
            if self._clusters and self._clusters[row] == self._clusters[sample.row]:
                continue
            try:
                images = self._task.stored_images(self._task.rows[row], row=row)
            except BadRow:
                continue
            if any(map(damage, images)):
                continue
            if len(images) == len(sample.images) and own.isdisjoint(map(_sha256, images)):
                return replace(sample, images=tuple(images))
        raise BadRow(f"{_place(sample)}: no other image can replace its own")

    def _drawn(self, sample: Sample) -> Iterator[int]:
        """Draw rows: first among those of the same modality, then among all."""
        drawn = random.Random(canonical(["wrong-image", sample.task, sample.id]))  # noqa: S311
        alike = self._alike[self._modalities[sample.row]] if self._modalities else []
        for pool in (alike, range(len(self._task.rows))):
            yield from drawn.sample(pool, k=min(_DRAWS, len(pool)))


def _with_options_moved(sample: Sample, *, number: int) -> Sample:
    """Write the options in another order; the reference is a text, and so it goes with its option.

    "None of the above" stays last. Options that name others by letter cannot be moved.
    """
    options = sample.options
    found = list(_list_of(options).finditer(sample.prompt)) if options else []
    if len(found) != 1:
        raise BadRow(f"{_place(sample)}: its prompt must list its options once, one per line")
    names_others = any(_LETTERS.fullmatch(one) and len(one.split()) > 1 for one in options)
    if names_others or any(map(_ENDS_LIST.search, options[:-1])):
        raise BadRow(f"{_place(sample)}: its options name each other")
    last = len(options) - bool(_ENDS_LIST.search(options[-1]))
    if len(set(options[:last])) < 2:  # noqa: PLR2004
        raise BadRow(f"{_place(sample)}: its options have only one order")
    drawn = random.Random(canonical(["shuffle-options", number, sample.task, sample.id]))  # noqa: S311
    moved = (*_another_order(options[:last], drawn), *options[last:])
    text = sample.prompt
    for at in reversed(range(len(moved))):
        start, end = found[0].span(f"option_{at}")
        text = text[:start] + moved[at] + text[end:]
    return replace(sample, prompt=text, options=moved)


def _another_order(options: Sequence[str], drawn: random.Random) -> list[str]:
    """Return another order, any of them with equal chance."""
    moved = list(options)
    while moved == list(options):
        drawn.shuffle(moved)
    return moved


@lru_cache(maxsize=64)
def _list_of(options: tuple[str, ...]) -> re.Pattern[str]:
    """Return what finds options that are listed as `A. text`, `A) text` or `(A) text`."""
    lines = [
        rf"^[ \t]*\(?{chr(ord('A') + number)}[.):][ \t]*"
        rf"(?P<option_{number}>{re.escape(text)})[ \t]*$"
        for number, text in enumerate(options)
    ]
    return re.compile(r"\n+".join(lines), re.MULTILINE)


@lru_cache(maxsize=64)
def _grey(size: tuple[int, int]) -> bytes:
    """Return a picture of one shade: the size tells nothing new, and no pixel tells anything."""
    from PIL import Image  # noqa: PLC0415

    out = io.BytesIO()
    Image.new("RGB", size, _GREY).save(out, format="PNG")
    return out.getvalue()


def _sha256(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()


def _place(sample: Sample) -> str:
    return f"task {sample.task.partition('@')[0]}, row {sample.row}"


class Disturbance(NamedTuple):
    """One sort of control."""

    disturbs: Disturbed
    step: Callable[[MedixTask, int], Disturb]
    """From a task and the control's number to what disturbs its samples."""


KINDS = {
    "no-image": Disturbance("images", lambda _task, _number: _without_images),
    "blank-image": Disturbance("images", lambda _task, _number: _with_blanks),
    "wrong-image": Disturbance("images", lambda task, _number: _Swap(task)),
    "shuffle-options": Disturbance(
        "options", lambda _task, number: partial(_with_options_moved, number=number)
    ),
    "always-normal": Disturbance(
        "normal report", lambda task, _number: partial(replace, answer=task.settings.normal_report)
    ),
}
NO_IMAGE = Control("no-image")
_EFFECTS: dict[Disturbed, Literal["vision gain", "order sensitivity", "gain over normal"]] = {
    "images": "vision gain",
    "options": "order sensitivity",
    "normal report": "gain over normal",
}


def effect_of(run: JudgedRun) -> ControlEffect | None:
    """Compare a control with its plain run; None if no plain run has all its samples."""
    control = run.manifest.generation.get("control")
    if control is None:
        return None
    try:
        plain = read_run(_plain_folder(run))
        if not _holds_all_of(run, plain):
            return None
        (pair,) = compare_runs([run, plain]).pairs
    except ConfigError as error:
        _LOG.debug("no plain run to compare with: %s", error)
        return None
    return ControlEffect(
        name=_EFFECTS[Control.named(control).disturbs],
        plain=str(plain.place),
        tasks=pair.tasks,
        groups=pair.groups,
        changed=pair.changed,
    )


def _plain_folder(run: JudgedRun) -> Path:
    generation = {key: value for key, value in run.manifest.generation.items() if key != "control"}
    plain = run.manifest.model_copy(update={"generation_digest": digest(generation)})
    judged = folder_of(run.folder.parent.parent, plain) / "judged" / run.judged.name
    return same if (same := selection_at(judged, run.place.name)).is_dir() else judged


def _holds_all_of(run: JudgedRun, plain: JudgedRun) -> bool:
    for name in run.judging.tasks:
        if name not in plain.judging.tasks:
            return False
        mine, theirs = run.entry(name).rows, plain.entry(name).rows
        if theirs is not None and (mine is None or not set(mine) <= set(theirs)):
            return False
    return True
