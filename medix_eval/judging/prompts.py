"""The prompts of judges: Jinja texts that see a question, a reference and an answer.

A prompt is rendered once before anything is sent, so that a misspelt name in it stops the run at
its start and not at its first verdict.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from functools import lru_cache
from string import ascii_uppercase

import jinja2
import yaml

from medix_eval.errors import ConfigError, UnknownName
from medix_eval.judging.error_tags import TAGS
from medix_eval.judging.protocol import DialogueJudge, LLMJudge, Protocol
from medix_eval.models.requests import thinking_switch
from medix_eval.records import IMAGE_MARK, CompletionRecord, Kind
from medix_eval.storage.sandbox import Sandbox

# A run of a stranger brings its prompts along: they fill in texts, and get at nothing else.
_JINJA = Sandbox(undefined=jinja2.StrictUndefined, trim_blocks=True)
_FIELDS = ("question", "reference", "answer", "fence", "answer_first")
Fields = Mapping[str, str]
_COMPARED = ("reference", "answer")
_HINT = f"a prompt can use {', '.join(_FIELDS)}, written as {{{{ answer }}}}"


def check_prompts(protocol: Protocol) -> None:
    """Fill every prompt of the judge once.

    Raises `ConfigError` for one that cannot be filled, and for one that shows the judge no answer
    or no reference: its verdicts would be readable, and about nothing; and for an unknown mistake
    or family of models.
    """
    spec = protocol.judge
    crossed = set[str]()
    if isinstance(spec, LLMJudge):
        thinking_switch(spec.thinking, "")
        rubrics = (spec.question, spec.report)
        crossed = {file for one in rubrics if one.crossed for file in one.prompts}
    if unknown := sorted(protocol.harm.keys() - TAGS):
        raise UnknownName("mistake in `harm`", unknown[0], sorted(TAGS))
    later = {spec.again_file} if isinstance(spec, DialogueJudge) else set()
    for name, template in compiled(protocol.judge_prompts).items():
        fields = {field: f"<{field}>" for field in _FIELDS}
        orders = [template.render({**fields, "answer_first": one}).casefold() for one in (0, 1)]
        missing = [one for one in _COMPARED if any(f"<{one}>" not in shown for shown in orders)]
        if name in crossed and len({*orders}) == 1:
            said = f"judge prompt {name} has one order, but is crossed"
            raise ConfigError(said, hint="use `answer_first`, or set `crossed: false`")
        if missing and name not in later:
            raise ConfigError(
                f"judge prompt {name} does not show the {' and the '.join(missing)}", hint=_HINT
            )


def compiled(texts: Mapping[str, str]) -> dict[str, jinja2.Template]:
    """Compile prompts by name. Raises `ConfigError` for one that cannot be filled."""
    return {name: _compiled(name, text) for name, text in texts.items()}


@lru_cache(maxsize=256)
def _compiled(name: str, text: str) -> jinja2.Template:
    try:
        template = _JINJA.template(text, f"judge prompt {name}")
        template.render(dict.fromkeys(_FIELDS, ""))
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"judge prompt {name}: {error}", hint=_HINT) from error
    return template


def fields_of(record: CompletionRecord, *, answer: str, published: bool = False) -> Fields:
    """Return what a judge's prompt sees of a sample; the published one saw all, without letters."""
    at, reference = record.question_at, _lettered(record)
    if published:
        at, reference = 0, record.reference
    return {
        "question": record.prompt[at:].replace(IMAGE_MARK, "").strip(),
        "reference": reference,
        "answer": answer,
    }


def filled(
    template: jinja2.Template, record: CompletionRecord, fields: Fields, *, swapped: bool = False
) -> str:
    """Return a prompt as a judge receives it; `fields` are those of `fields_of`."""
    mark = fence(record.sample_id, fields["answer"])
    return template.render(**fields, fence=mark, answer_first=swapped)


def _lettered(record: CompletionRecord) -> str:
    """Put the letters of the right option, and of any that reads the same, before the reference."""
    letters = [
        letter
        for letter, option in zip(ascii_uppercase, record.options, strict=False)
        if option.split() == record.reference.split()
        and re.search(rf"(?m)^\W*{letter}\W+{re.escape(option[:40])}", record.prompt)
    ]
    return f"{' or '.join(letters)}. {record.reference}" if letters else record.reference


def fence(sample_id: str, answer: str) -> str:
    """Return the mark around an answer in a judge's prompt: few tokens, and not in the answer.

    It depends on sample and answer alone, so the prompt is the same in every run.
    """
    code, text = b"", answer.encode(errors="replace")
    while True:
        code = hmac.new(sample_id.encode() + code, text, hashlib.sha256).digest()
        letters = zip(code, ("bdfgklmnprst", "aeiou") * 3, strict=False)
        word = "".join(some[byte % len(some)] for byte, some in letters)
        if word not in answer.lower():
            return f"=== {word} ==="


_EXAMPLES = [
    CompletionRecord(task="example@1", sample_id="example", row=0, kind=kind, prompt=prompt,
                     reference=reference, options=options)
    for kind, prompt, reference, options in (
        (Kind.MULTIPLE_CHOICE,
         "Which vitamin prevents scurvy?\n\nChoices:\nA. Vitamin A\nB. Vitamin C",
         "Vitamin C", ("Vitamin A", "Vitamin C")),
        (Kind.REPORT, "<image>Write the impression of this chest radiograph.",
         "No pneumothorax. Small left pleural effusion.", ()),
    )
]  # fmt: skip
_ANSWERS = {
    Kind.MULTIPLE_CHOICE: "<answer>B</answer>",
    Kind.REPORT: "Small effusion on the left. Lungs are clear.",
}


def shown_protocol(protocol: Protocol) -> str:
    """Return the settings as YAML, then the prompts as a judge receives them."""
    check_prompts(protocol)
    settings = protocol.model_dump(mode="json", exclude={"texts"})
    parts = [
        yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100).rstrip(),
        f"digest: {protocol.digest}",
    ]
    for record in _EXAMPLES:
        for name, title in _prompts(protocol, record.kind):
            parts += [f"\n--- {title}", _shown(protocol, name, record)]
    if not protocol.judge.prompt_files():
        parts.append("\n--- no language model is asked")
    return "\n".join(parts)


def _prompts(protocol: Protocol, kind: Kind) -> list[tuple[str, str]]:
    """Return the prompt files that an answer of this kind meets, and when."""
    what = "reports" if kind is Kind.REPORT else "questions"
    spec = protocol.judge
    if isinstance(spec, LLMJudge):
        rubric = spec.rubric(kind)
        repeats = f", asked {rubric.repeats} times" if rubric.repeats > 1 else ""
        return [(name, f"{what}: {name}{repeats}") for name in rubric.prompts]
    if isinstance(spec, DialogueJudge):
        first = spec.report_prompt_file if kind is Kind.REPORT else spec.prompt_file
        again = f"{what}, each turn up to {spec.turns}: {spec.again_file}"
        return [(first, f"{what}, turn 1: {first}"), (spec.again_file, again)]
    return []


def _shown(protocol: Protocol, name: str, record: CompletionRecord) -> str:
    template = compiled({name: protocol.texts[name]})[name]
    published = isinstance(protocol.judge, DialogueJudge)
    fields = fields_of(record, answer=_ANSWERS[record.kind], published=published)
    return filled(template, record, fields)
