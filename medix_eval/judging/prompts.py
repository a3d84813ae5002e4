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

from medix_eval.errors import ConfigError
from medix_eval.judging.protocol import DialogueJudge, Protocol
from medix_eval.records import IMAGE_MARK, CompletionRecord

# A run of a stranger brings its prompts along: they fill in texts, and get at nothing else.
_JINJA = jinja2.sandbox.ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined,
    autoescape=False,
)
_FIELDS = ("question", "reference", "answer", "fence")
_COMPARED = ("reference", "answer")
_HINT = f"a prompt sees {', '.join(_FIELDS)}, written as {{{{ answer }}}}"


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
