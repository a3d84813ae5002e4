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
from medix_eval.evaluation.pipeline import record_of
from medix_eval.judging.judge import rounds
from medix_eval.judging.prompts import compiled, fields_of, filled
from medix_eval.judging.protocol import LLMJudge, Protocol, load_protocol
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
        votes = list(votes_on(record, record.reference, protocol))
        others = list(votes_on(record, _OTHER, protocol))
        for (cell, text), (_, other) in zip(votes, others, strict=True):
            ids = read(text)
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
            yield record_of(sample)


def votes_on(
    record: CompletionRecord, answer: str, protocol: Protocol
) -> Iterator[tuple[str, str]]:
    """Yield cell and prompt of the votes that are always asked."""
    assert isinstance(protocol.judge, LLMJudge)
    fields = fields_of(record, answer=answer)
    for cell, _ in rounds(protocol.judge.rubric(record.kind), record.sample_id)[0]:
        template = compiled({cell.file: protocol.texts[cell.file]})[cell.file]
        yield cell.name, filled(template, record, fields, swapped=cell.answer_first)
