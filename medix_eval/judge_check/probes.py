"""The probe set: labelled answers that show what a judge can tell apart.

Made from the templates and the lexicon in `judges/probes`, the same for a seed, plus items written
by hand. A wording is in one split only, so that a judge improved on `development` is measured
on wordings that were not used for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template, ascii_uppercase
from typing import Any, Literal

import yaml

from medix_eval.errors import ConfigError
from medix_eval.judge_check.facts import Case, Lexicon, cases_of
from medix_eval.judging.replies import RELATIONS
from medix_eval.records import CompletionRecord, Kind
from medix_eval.storage.bundled import bundled
from medix_eval.storage.digests import digest

Split = Literal["development", "held_out"]
HANDWRITTEN = "handwritten"
_TASK = "probe"
_NUM_ASIDES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAnswer:
    """An answer of which a person has said whether it is right."""

    record: CompletionRecord
    is_correct: bool
    label_class: str
    """What sort of answer it is, such as `laterality`; of a run's own answers, their task."""
    split: str
    relation: str = ""
    """How it stands to the reference, a word of `RELATIONS`; of other answers it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSet:
    """The items of one split, with what was written by hand."""

    items: tuple[LabelledAnswer, ...]
    source: Mapping[str, Any]
    """What the scorecard says of it: version, split, seed, digest."""


def load_probes(split: Split) -> ProbeSet:
    """Make the probe set of a split: its generated items, and those written by hand."""
    folder = bundled("judges") / "probes"
    templates, lexicon = _read(folder / "templates.yaml"), _read(folder / "lexicon.yaml")
    seed = templates["seeds"][split]
    asides: Sequence[str] = lexicon.pop("asides")
    made = list(_generated(templates, lexicon, asides, split=split, seed=seed))
    made += _handwritten(_read(folder / "handwritten.yaml"))
    items = tuple(
        LabelledAnswer(
            record=_record(item, row=row),
            is_correct=RELATIONS[item.relation] == 1,
            relation=item.relation,
            label_class=item.label_class,
            split=item.split,
        )
        for row, item in enumerate(made)
    )
    content = digest([asdict(item) for item in made])
    source = {"version": templates["version"], "split": split, "seed": seed, "digest": content}
    return ProbeSet(items=items, source=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    label_class: str
    split: str
    relation: str
    kind: Kind
    question: str
    reference: str
    options: tuple[str, ...]
    answer: str


def _generated(
    templates: Mapping[str, Any],
    lexicon: Lexicon,
    asides: Sequence[str],
    *,
    split: Split,
    seed: int,
) -> Iterator[_Item]:
    for name, made in templates["classes"].items():
        draw = random.Random(f"{seed} {name}")  # noqa: S311 (no secret: the same set for a seed)
        blocks = made["blocks"]
        for number, block in enumerate(blocks):
            # What does not divide evenly goes to the first blocks.
            wanted = len(range(number, templates["per_class"], len(blocks)))
            cases = cases_of(block["facts"], lexicon, turn=seed)
            draw.shuffle(cases)
            wordings = block[split]
            if wanted > len(cases) * len(wordings):
                raise ConfigError(f"probe class {name}: {block['facts']} makes too few items")
            for at in range(wanted):
                round_number, index = divmod(at, len(cases))
                case = cases[index]
                wording = wordings[(index + round_number) % len(wordings)]
                yield _Item(
                    label_class=name,
                    split=split,
                    relation=block.get("relation", made["relation"]),
                    kind=case.kind,
                    question=case.question,
                    reference=case.reference,
                    options=case.options,
                    answer=_worded(wording, case, draw.sample(asides, _NUM_ASIDES)),
                )


def _worded(wording: str, case: Case, asides: Sequence[str]) -> str:
    fields = {"reference": case.reference, **case.fields}
    fields |= {name.capitalize(): text[:1].upper() + text[1:] for name, text in fields.items()}
    fields |= dict(zip(("aside", "aside2", "aside3"), asides, strict=True))
    return Template(wording).substitute(fields)


def _handwritten(rows: Sequence[Mapping[str, Any]]) -> Iterator[_Item]:
    for row in rows:
        options = tuple(row.get("options", ()))
        lettered = zip(ascii_uppercase, options, strict=False)
        shown = (f"{letter}. {text}" for letter, text in lettered)
        is_closed = row["reference"] in {"Yes", "No"}
        open_kind = Kind.CLOSED if is_closed else Kind.OPEN
        yield _Item(
            label_class=row["class"],
            split=HANDWRITTEN,
            relation=row["relation"],
            kind=Kind.MULTIPLE_CHOICE if options else open_kind,
            question="\n".join((row["question"], *shown)),
            reference=row["reference"],
            options=options,
            answer=row["answer"] * row.get("times", 1),
        )


def _record(item: _Item, *, row: int) -> CompletionRecord:
    """Return an item as if a candidate had just answered: it is judged like any other."""
    return CompletionRecord(
        task=f"{_TASK}@1",
        sample_id=digest(asdict(item))[:16],
        row=row,
        kind=item.kind,
        prompt=item.question,
        reference=item.reference,
        options=item.options,
        completion=item.answer,
        finish_reason="stop",
    )


def _read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
