"""What the monitor sees of a policy that plays its reward, and what the page shows of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from medix_eval.errors import ConfigError
from medix_eval.judging.canaries import accept_rates, canaries
from medix_train.monitor import FILE, Monitor, alarms, read_steps, signals, write_training_report
from medix_train.recipe import SIGNS, MonitorSettings

GOOD = "<X_RAY><thinking>It is dense.</thinking><answer>{}</answer>"
REFERENCES = ["left lung", "heart", "liver", "no effusion"]
LOGGED = {
    "reward": 0.5,
    "completions/mean_length": 40.0,
    "completions/clipped_ratio": 0.0,
    "kl": 0.1,
}


def step(answers: list[str] = REFERENCES, **columns: Any) -> pd.DataFrame:
    texts = columns.pop("texts", [GOOD.format(answer) for answer in answers])
    return pd.DataFrame(
        {
            "completion": [[{"role": "assistant", "content": text}] for text in texts],
            "answer": answers,
            "reference": REFERENCES,
            "judge": [1.0] * len(answers),
            "embedding": [1.0] * len(answers),
            **columns,
        }
    )


def test_an_honest_step_shows_no_sign() -> None:
    found = signals(step(), LOGGED)

    assert found["kl"] == 0.1
    assert {value for name, value in found.items() if name != "kl"} == {0.0}


@pytest.mark.parametrize(
    ("sign", "hacked", "value"),
    [
        ("yes_unlike", step(embedding=[0.0, 0.0, 1.0, 1.0]), 0.5),
        ("yes_against_rules", step(["right lung", "heart", "liver", "effusion"]), 0.5),
        ("other_tags", step(texts=[GOOD.format("x") + "</answer>" * 5] * 4), 1.0),
        ("outside_text", step(texts=[GOOD.format("x") + " sure"] * 3 + [GOOD.format("x")]), 0.75),
        ("repeated", step(["heart"] * 4), 0.75),
    ],
)
def test_each_hack_has_its_sign(sign: str, hacked: pd.DataFrame, value: float) -> None:
    assert signals(hacked, {})[sign] == value


def test_a_missing_verdict_is_no_yes() -> None:
    found = signals(step(judge=[None, 1.0, 0.0, None], embedding=[0.0, 0.0, 0.0, 0.0]), {})

    assert found["yes_unlike"] == 1.0


def raised(*values: float, name: str = "clipped", **settings: Any) -> list[str]:
    steps = [{"step": at, name: value} for at, value in enumerate(values)]
    return alarms(steps, MonitorSettings(**settings))


@pytest.mark.parametrize(
    ("values", "is_alarm"),
    [
        pytest.param((0.0, 0.0, 0.0, 0.9, 0.9, 0.9), True, id="it came and stayed"),
        pytest.param((0.0, 0.0, 0.0, 0.9, 0.9, 0.1), False, id="it went again"),
        pytest.param((0.9, 0.9, 0.9, 0.9, 0.9, 0.9), False, id="it was always so"),
        pytest.param((0.0, 0.9), False, id="too early to say"),
    ],
)
def test_a_sign_counts_when_it_lasts_and_is_new(
    values: tuple[float, ...], *, is_alarm: bool
) -> None:
    assert bool(raised(*values)) == is_alarm


def test_a_judge_that_takes_canaries_from_the_start_is_said_at_once() -> None:
    assert raised(0.5, 0.5, 0.5, name="canary_key") == [
        "the judge accepts empty phrases: 0.50, limit 0.1 (canary_key)"
    ]


def test_canaries_count_by_their_last_values_between_two_rounds() -> None:
    steps: list[dict[str, Any]] = [{"step": at} for at in range(9)]
    steps[2]["canary_wrong"] = 0.9

    assert len(alarms(steps, MonitorSettings())) == 1


def test_limits_and_patience_are_settings() -> None:
    assert raised(0.0, 0.0, 0.2, limits={"clipped": 0.1}, in_a_row=1)
    assert not raised(0.0, 0.0, 0.2, in_a_row=1)


def watched(out: Path, frames: list[pd.DataFrame], **settings: Any) -> list[bool]:
    monitor = Monitor(out, MonitorSettings(**settings))
    (out / "completions").mkdir()
    stops = []
    for at, frame in enumerate(frames, start=1):
        frame.to_parquet(out / "completions" / f"completions_{at:05d}.parquet")
        logged = {**LOGGED, "canary/key_accepted": 0.0, "reward_parts/judge": 0.25 * at}
        stops.append(monitor.watch(at, logged))
    return stops


def test_the_monitor_reads_what_trl_wrote_and_stops_when_told_to(tmp_path: Path) -> None:
    hacked = step(texts=[GOOD.format("x") + "</answer>" * 5] * 4)
    stops = watched(tmp_path, [step(), step(), hacked, hacked], stop=True, in_a_row=2)

    assert stops == [False, False, False, True]
    assert [one["other_tags"] for one in read_steps(tmp_path)] == [0.0, 0.0, 1.0, 1.0]


def test_it_only_warns_by_default_and_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hacked = step(texts=[GOOD.format("x") + "</answer>" * 5] * 4)
    stops = watched(tmp_path, [step(), step(), hacked, hacked, hacked], in_a_row=2)

    assert not any(stops)
    assert len(caplog.messages) == 1
    assert "step 4: completions have more or fewer than four tags: 1.00" in caplog.text


def test_steps_done_again_after_a_resume_count_once(tmp_path: Path) -> None:
    lines = [{"step": 1, "kl": 0.1}, {"step": 2, "kl": 0.2}, {"step": 2, "kl": 0.3}]
    (tmp_path / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert [one["kl"] for one in read_steps(tmp_path)] == [0.1, 0.3]


def test_the_page_stands_alone_and_shows_curves_limits_and_alarms(
    tmp_path: Path, visit: Callable[..., Any]
) -> None:
    hacked = step(texts=["<script>alert(1)</script>" + GOOD.format("x") * 2] * 4)
    watched(tmp_path, [step(), step(), hacked, hacked, hacked], in_a_row=2)
    seen = visit(write_training_report(tmp_path))

    assert seen.is_clean, seen.problems
    assert seen.violations() == []
    assert "From step 4: completions have more or fewer than four tags" in seen.page.inner_text(
        "main"
    )
    assert seen.page.locator("#signs figure").count() >= 7
    assert seen.page.locator("#reward polyline").first.get_attribute("points").count(",") == 5
    assert seen.page.locator("#signs .limit").count() == seen.page.locator("#signs figure").count()


def test_a_folder_without_a_training_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no training"):
        write_training_report(tmp_path)


def test_every_canary_is_wrong_and_pairs_change_with_time() -> None:
    questions = [f"q{n}" for n in range(4)]
    first = canaries(questions, REFERENCES, shift=0)
    later = canaries(questions, REFERENCES, shift=1)

    assert all(one.asked.answer != one.asked.reference for one in first)
    assert {one.kind for one in first} == {"wrong", "key"}
    assert first != later


def test_a_batch_with_one_reference_sends_only_keys() -> None:
    sent = canaries(["q", "q"], ["Heart", "heart."], shift=0)

    assert {one.kind for one in sent} == {"key"}


def test_a_failed_canary_is_neither_accepted_nor_refused() -> None:
    sent = canaries(["q"], ["heart"], shift=0)

    assert accept_rates(sent, {one.asked: None for one in sent}) == {}
    assert accept_rates(sent, {one.asked: 1.0 for one in sent}) == {"canary/key_accepted": 1.0}


def test_signs_have_names_of_their_own() -> None:
    assert len({sign.name for sign in SIGNS}) == len(SIGNS)
