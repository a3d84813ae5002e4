from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medix_eval.errors import ConfigError
from medix_eval.evaluation.api import judge_choices
from medix_eval.evaluation.panel import JudgeChoice, judge_sources, resolve_judges
from medix_eval.judging.judge import Grade, Jury, combined
from medix_eval.judging.protocol import load_protocol
from medix_eval.models.openai_server import OpenAIServer
from medix_eval.records import CompletionRecord, Kind, Vote


@dataclass
class Fixed:
    """A judge that always gives the same score."""

    score: float | None
    refuses: bool = False

    async def grade(self, record: CompletionRecord, *, answer: str) -> Grade:
        vote = Vote(judge="j", prompt="p", key=str(self.score), points=self.score)
        by = str(self.score) if self.refuses else ""
        return Grade(score=self.score, votes=(vote,), refused_by=by)


def verdict_of(scores: list[float | None], *, kind: Kind = Kind.OPEN) -> Grade:
    judges = {f"judge-{number}": Fixed(score) for number, score in enumerate(scores)}
    record = CompletionRecord(
        task="t@1", sample_id="s", row=0, kind=kind, prompt="Q", reference="R"
    )
    return asyncio.run(Jury(judges=judges, combine="majority").grade(record, answer="A"))


def test_a_jury_keeps_what_each_judge_said() -> None:
    found = verdict_of([1.0, 0.0, 1.0])

    assert found.score == 1.0
    assert found.by_judge == {"judge-0": 1.0, "judge-1": 0.0, "judge-2": 1.0}
    assert len(found.votes) == 3


def test_two_of_three_decide_although_one_judge_failed() -> None:
    assert verdict_of([0.0, None, 0.0]).score == 0.0
    assert verdict_of([0.0, None, 1.0]).score is None


def test_reports_are_averaged_whatever_the_protocol_says() -> None:
    assert verdict_of([0.2, 0.4, 0.9], kind=Kind.REPORT).score == pytest.approx(0.5)
    assert verdict_of([0.2, None, 0.9], kind=Kind.REPORT).score is None


@pytest.mark.parametrize("kind", [Kind.OPEN, Kind.REPORT])
def test_an_answer_is_refused_if_most_judges_say_so(kind: Kind) -> None:
    record = CompletionRecord(
        task="t@1", sample_id="s", row=0, kind=kind, prompt="Q", reference="R"
    )
    no, yes = Fixed(0.0, refuses=True), Fixed(0.2)

    def found(*judges: Fixed) -> Grade:
        jury = Jury(judges=dict(zip("abc", judges, strict=False)), combine="majority")
        return asyncio.run(jury.grade(record, answer="A"))

    assert (found(no, no, yes).score, found(no, no, yes).refused_by) == (0.0, "0.0, 0.0")
    assert found(no, yes, yes).refused_by == ""
    assert found(no, yes).refused_by == ""
    assert found(no, no, Fixed(None)).refused_by == ("" if kind is Kind.REPORT else "0.0, 0.0")


@given(scores=st.lists(st.sampled_from([0.0, 1.0, None]), min_size=1, max_size=7))
def test_a_majority_is_of_the_whole_jury(scores: list[float | None]) -> None:
    score = combined(scores, combine="majority")

    assert score is None or 2 * scores.count(score) > len(scores)


def choices(names: list[str], **given: list[str] | list[int]) -> tuple[JudgeChoice, ...]:
    return judge_choices(names, {f"judge_{name}": values for name, values in given.items()})


def test_one_judge_shares_its_load_and_several_have_an_address_each() -> None:
    (one,) = choices(["openai:a"], base_url=["http://x/v1", "http://y/v1"])
    first, local, last = choices(
        ["openai:a", "org/b", "openai:c"], base_url=["http://x/v1", "http://y/v1"], gpus=["1"]
    )

    assert one.flags.base_urls == ("http://x/v1", "http://y/v1")
    assert (first.flags.base_urls, first.flags.gpus) == (("http://x/v1",), None)
    assert (local.flags.base_urls, local.flags.gpus) == ((), "1")
    assert last.flags.base_urls == ("http://y/v1",)


def test_one_address_serves_a_whole_jury() -> None:
    jury = choices(["openai:a", "openai:b", "openai:c"], base_url=["http://x/v1"])

    assert {choice.flags.base_urls for choice in jury} == {("http://x/v1",)}


def test_flags_that_do_not_go_round_are_refused() -> None:
    with pytest.raises(ConfigError, match="--judge-base-url is given 2 times; judges: 3"):
        choices(["openai:a", "openai:b", "openai:c"], base_url=["http://x/v1", "http://y/v1"])


def test_an_even_jury_has_no_majority(tmp_path: Path) -> None:
    two = choices(["openai:a", "openai:b"], base_url=["http://x/v1"])

    with pytest.raises(ConfigError, match="2 judges can be split evenly"):
        judge_sources(load_protocol("medix"), two, out=tmp_path)
    mean = load_protocol("medix", overrides=["judge.jury=mean"])
    assert len(judge_sources(mean, two, out=tmp_path)) == 2


def server(model: str, url: str) -> OpenAIServer:
    return OpenAIServer(model=model, base_url=url, role="judge")


def test_the_same_judge_twice_is_refused_and_two_servers_of_one_name_are_told_apart() -> None:
    with pytest.raises(ConfigError, match="is the same model as openai:a"):
        resolve_judges([server("a", "http://x/v1"), server("a", "http://x/v1")])

    judges = resolve_judges([server("a", "http://x/v1"), server("a", "http://y/v1")])
    assert [judge.name for judge in judges] == ["openai:a", "openai:a#2"]
