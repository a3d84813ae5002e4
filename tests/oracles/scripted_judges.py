"""A judge without a server: it replies by a script, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.judge import Judge
from medix_eval.judging.protocol import LLMJudge, load_protocol
from medix_eval.models.chat import Completion, Prompt, Sampling


class Scripted:
    """Gives the replies in order, the last one for ever; keeps what it was asked."""

    def __init__(self, *replies: str | Exception | Completion) -> None:
        self.replies = list(replies)
        self.prompts: list[Prompt] = []
        self.seeds: list[int] = []

    async def ask(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.prompts.append(prompt)
        self.seeds.append(sampling.seed)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Completion) else Completion(text=reply)


def a_judge(
    scripted: Scripted,
    *,
    tries: int = 1,
    cache: VerdictCache | None = None,
    protocol: str = "medix",
    overrides: Sequence[str] = (),
    name: str = "scripted",
) -> Judge:
    """Return a judge of a protocol that replies by the script."""
    loaded = load_protocol(protocol, overrides=[f"judge.tries={tries}", *overrides])
    assert isinstance(loaded.judge, LLMJudge)
    return Judge(
        name=name,
        identity={"id": "scripted"},
        ask=scripted.ask,
        spec=loaded.judge,
        texts=loaded.texts,
        cache=cache,
    )
