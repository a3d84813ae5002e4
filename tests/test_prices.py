from __future__ import annotations

from pathlib import Path

import pytest

from medix_eval.errors import ConfigError
from medix_eval.records import Outcome
from medix_eval.report.tables import notes
from medix_eval.results.prices import Prices, cost_of, read_prices
from medix_eval.results.scores import Scores, TaskScore


def scores(score: float) -> Scores:
    task = TaskScore(
        version="1", kind="open", limit=None, synthetic=False, n=50, n_scored=40, score=score,
        stderr=None, rules_score=None, rules_n=0, outcomes=dict.fromkeys(Outcome, 0), bounds=None,
    )  # fmt: skip
    return Scores(
        model="m", judges=[], protocol={}, generation_digest="", judging_digest="", run="",
        limit=None, synthetic=False, tasks={"t": task}, groups={},
        usage={
            "candidate": {"prompt_tokens": 2_000_000, "completion_tokens": 500_000},
            "judge": {"calls": 80},
        },
    )  # fmt: skip


PRICES = Prices(currency="EUR", prompt_tokens=0.5, completion_tokens=2.0, judge_call=0.025)


def test_a_run_costs_its_tokens_and_its_judge_calls() -> None:
    cost = cost_of(scores(0.5), PRICES)

    assert (cost.candidate, cost.judge) == (2.0, 2.0)
    assert cost.per_correct == 0.2


def test_the_cost_stands_below_the_table() -> None:
    run = scores(0.5).model_copy(update={"cost": cost_of(scores(0.5), PRICES)})

    assert (
        "Cost: 2 EUR for the model, 2 for the judge; 0.2 for each fully correct answer."
        in notes(run)
    )


def test_nothing_right_has_no_price() -> None:
    assert cost_of(scores(0.0), PRICES).per_correct is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("currency: EUR\nprompt_tokens: 1\n", "completion_tokens: Field required"),
        ("currency: EUR\nprompt_tokens: -1\ncompletion_tokens: 1", "prompt_tokens"),
        ("price: 3", "Field required"),
        ("currency: EUR\nprompt_tokens: 1\ncompletion_tokens: 1\ntax: 1", "unknown key 'tax'"),
        ("- 1", "is not a price list: expected keys and values"),
    ],
)
def test_a_wrong_file_of_prices_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=said):
        read_prices(path)
