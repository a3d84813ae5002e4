"""A protocol in full: its settings, and every prompt of its judge filled with an example."""

from __future__ import annotations

import yaml

from medix_eval.judging.prompts import check_prompts, compiled, fence, fields_of
from medix_eval.judging.protocol import DialogueJudge, LLMJudge, Protocol
from medix_eval.records import CompletionRecord, Kind

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
    return template.render(
        **fields_of(record, answer=answer), fence=fence(record.sample_id, answer)
    )
