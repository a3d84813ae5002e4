"""How many tokens a judge is sent for a sample, and how much of them servers can keep.

Real questions, the tokenizer and chat template of SmolLM2, and answers of two models: the
reference, and a sentence. The two votes that are always asked are counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from medix_eval.data.lm_task import open_task
from medix_eval.data.samples import read_samples
from medix_eval.data.tasks import open_catalogue
from medix_eval.evaluation.pipeline import line_of
from medix_eval.judging.judge import first_votes
from medix_eval.judging.protocol import load_protocol
from medix_eval.records import CompletionRecord, Sample

_ROWS = 150
_OTHER = "After weighing the findings I would say that it is the first of these."


class Tokens(NamedTuple):
    """Of one task: tokens of both votes on a sample, and shares of a vote."""

    a_sample: float
    all_share: float
    """What the prompts of all samples begin with, cell by cell."""
    models_share: float
    """What the prompts about two models' answers to one question begin with."""


def prompt_tokens(task: str, folder: Path, model: Path) -> Tokens:
    """Count the tokens of the judge's prompts about rows spread over a task."""
    from transformers import AutoTokenizer  # noqa: PLC0415 (seconds)

    tokenizer, protocol = AutoTokenizer.from_pretrained(model), load_protocol("medix")

    def read(text: str) -> Sequence[int]:
        turn = [{"role": "user", "content": text}]
        asked: Any = tokenizer.apply_chat_template(turn, add_generation_prompt=True)
        ids: Sequence[int] = asked["input_ids"] if hasattr(asked, "keys") else asked
        return ids

    by_cell: defaultdict[str, list[Sequence[int]]] = defaultdict(list)
    of_models = []
    for record in records_of(task, folder):
        votes = first_votes(protocol, record, record.reference)
        others = first_votes(protocol, record, _OTHER)
        for cell, text in votes.items():
            ids, other = read(text), others[cell]
            by_cell[cell].append(ids)
            of_models.append(_shared([ids, read(other)]) / len(ids))
    lengths = [len(ids) for votes in by_cell.values() for ids in votes]
    shared = sum(len(votes) * _shared(votes) for votes in by_cell.values())
    return Tokens(2 * fmean(lengths), shared / sum(lengths), fmean(of_models))


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all begin with."""
    columns = zip(*prompts, strict=False)
    return sum(1 for _ in takewhile(lambda column: len({*column}) == 1, columns))


def records_of(task: str, folder: Path) -> Iterator[CompletionRecord]:
    """Yield rows spread over a task."""
    file = open_catalogue().tasks[task]
    opened = open_task(file, data_root=folder)
    rows = range(0, len(opened.rows), max(1, len(opened.rows) // _ROWS))
    for sample in read_samples(opened, rows, key=file.key, done=set(), taken=set()):
        if isinstance(sample, Sample):
            yield line_of(sample)
