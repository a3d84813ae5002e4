"""The prompts of judges: Jinja texts that see a question, a reference and an answer.

A prompt is rendered once before anything is sent, so that a misspelt name in it stops the run at
its start and not at its first verdict.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache

import jinja2
import jinja2.sandbox
import yaml

from medix_eval.errors import ConfigError
from medix_eval.judging.protocol import DialogueJudge, LLMJudge, Protocol
from medix_eval.records import IMAGE_MARK, CompletionRecord, Kind

# A run of a stranger brings its prompts along: they fill in texts, and get at nothing else.
_JINJA = jinja2.sandbox.ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False
)
_FIELDS = ("question", "reference", "answer", "fence")
_COMPARED = ("reference", "answer")
_HINT = f"a prompt can use {', '.join(_FIELDS)}, written as {{{{ answer }}}}"


def check_prompts(protocol: Protocol) -> None:
    """Fill every prompt of the judge once.

    Raises `ConfigError` for one that cannot be filled, and for one that shows the judge no answer
    or no reference: its verdicts would be readable, and about nothing.
    """
    spec = protocol.judge
    later = {spec.again_file} if isinstance(spec, DialogueJudge) else set()
    for name, template in compiled(protocol.judge_prompts).items():
        shown = template.render({field: f"<{field}>" for field in _FIELDS}).casefold()
        missing = [field for field in _COMPARED if f"<{field}>" not in shown]
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
        template = _JINJA.from_string(text)
        template.render(dict.fromkeys(_FIELDS, ""))
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"judge prompt {name}: {error}", hint=_HINT) from error
    return template


def fields_of(record: CompletionRecord, *, answer: str) -> dict[str, str]:
    """Return what a judge's prompt sees of a sample."""
    return {
        "question": record.prompt.replace(IMAGE_MARK, "").strip(),
        "reference": record.reference,
        "answer": answer,
    }


def fence(sample_id: str, answer: str) -> str:
    """Return the mark around an answer in a judge's prompt.

    It depends on the answer, so no answer can hold its own fence; and on nothing else that
    changes, so the prompt is the same in every run.
    """
    code = hmac.new(sample_id.encode(), answer.encode(errors="replace"), hashlib.sha256)
    return f"=== answer {code.hexdigest()[:16]} ==="


_EXAMPLES = {
    Kind.MULTIPLE_CHOICE: CompletionRecord(
        task="example@1",
        sample_id="example",
        row=0,
        kind=Kind.MULTIPLE_CHOICE,
        prompt="Which vitamin prevents scurvy?\n\nChoices:\nA. Vitamin A\nB. Vitamin C",
        reference="Vitamin C",
    ),
    Kind.REPORT: CompletionRecord(
        task="example@1",
        sample_id="example",
        row=0,
        kind=Kind.REPORT,
        prompt="<image>Write the impression of this chest radiograph.",
        reference="No pneumothorax. Small left pleural effusion.",
    ),
}
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
    for kind, record in _EXAMPLES.items():
        for name, title in _prompts(protocol, kind):
            parts += [f"\n--- {title}", _filled(protocol, name, record)]
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


def _filled(protocol: Protocol, name: str, record: CompletionRecord) -> str:
    answer = _ANSWERS[record.kind]
    template = compiled({name: protocol.texts[name]})[name]
    mark = fence(record.sample_id, answer)
    return template.render(**fields_of(record, answer=answer), fence=mark)
