"""The scorecard says exactly what a judge did, and the sheet comes back as it went out."""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_servers import FENCED, Run, Serve, asked_answer, judge
from statsmodels.stats.inter_rater import cohens_kappa

from medix_eval.judge_check.biases import JudgedAnswer, confusion, letter_bias
from medix_eval.judge_check.check import draw
from medix_eval.judge_check.probes import LabelledAnswer, load_probes
from medix_eval.judging.prompts import fence
from medix_eval.records import Outcome, VerdictRecord
from medix_eval.results.scorecard import Kappa, Scorecard
from medix_eval.rules.answers import extract_answer
from medix_eval.testing import Script, prompt_text

YES, NO, GARBAGE = '{"score": 1}', '{"score": 0}', "I would rather not say."
Check = Callable[..., tuple[int, dict[str, Any]]]
"""Runs `judge-check` and returns its exit code and the scorecard."""
Counts = Sequence[int]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def check(run: Run, out: Path) -> Check:
    def call(*argv: str | Path) -> tuple[int, dict[str, Any]]:
        code, text, _ = run("judge-check", *argv, "--out", out, "--json")
        return code, json.loads(text) if text else {}

    return call


@pytest.fixture
def serve(serve: Serve) -> Callable[[Script], list[str]]:
    """Start a scripted judge and return the flags that name it."""
    return lambda script: judge(serve(script))


class Planned:
    """A judge that errs on known answers: every fourth wrong one, every fifth right one, and so on.

    It knows an answer by its fence and its words.
    """

    def __init__(self) -> None:
        self.items = {
            (fence(item.record.sample_id, answer), answer): item
            for item in load_probes("held_out").items
            for answer in [extract_answer(item.record.completion or "")]
        }
        self.said: dict[tuple[str, str], str] = {}
        self._seen: Counter[tuple[str, bool]] = Counter()
        """The plan is made as answers come: what never reaches the judge has no place in it."""

    def __call__(self, body: dict[str, Any]) -> str:
        (mark,) = FENCED.findall(prompt_text(body))
        if mark not in self.said:
            item = self.items[mark]
            key = (item.label_class, item.is_correct)
            number = self._seen[key]
            self._seen[key] += 1
            truth, lie = (YES, NO) if item.is_correct else (NO, YES)
            every = 5 if item.is_correct else 4
            self.said[mark] = GARBAGE if number % 10 == 9 else lie if number % every == 0 else truth
        return self.said[mark]

    def count(self, *, reply: str, is_correct: bool, label_class: str | None = None) -> int:
        return sum(
            said == reply
            and self.items[mark].is_correct == is_correct
            and label_class in {None, self.items[mark].label_class}
            for mark, said in self.said.items()
        )


@pytest.mark.slow
def test_a_judge_with_known_errors_gets_exactly_those_rates(check: Check, serve: Any) -> None:
    planned = Planned()

    code, card = check(*serve(planned), "--no-cache")

    settled = [item for mark, item in planned.items.items() if mark not in planned.said]
    assert code == 1  # the garbage is failed samples
    assert not any(item.is_correct for item in settled)  # refusals and empty answers
    for name, group in [*card["classes"].items(), (None, card["overall"])]:
        wrong = sum(name in {None, item.label_class} for item in settled)
        accepted = planned.count(reply=YES, is_correct=False, label_class=name)
        rejected = planned.count(reply=NO, is_correct=True, label_class=name)
        wrong += accepted + planned.count(reply=NO, is_correct=False, label_class=name)
        right = rejected + planned.count(reply=YES, is_correct=True, label_class=name)
        failed = [
            planned.count(reply=GARBAGE, is_correct=c, label_class=name) for c in (True, False)
        ]
        assert (group["false_accept"]["k"], group["false_accept"]["n"]) == (accepted, wrong)
        assert (group["false_reject"]["k"], group["false_reject"]["n"]) == (rejected, right)
        assert group["n_failed"] == sum(failed)
        assert group["accuracy"]["k"] == wrong + right - accepted - rejected
        assert group["n_decided"] + group["n_failed"] == group["n"]
    assert card["overall"]["false_accept"]["k"] > 80
    assert card["overall"]["false_reject"]["k"] > 40
    assert card["consistency"]["value"] == 1.0


def test_the_rates_are_those_worked_out_by_hand() -> None:
    found = confusion(
        [
            *judged(40, is_correct=False, is_accepted=False),
            *judged(10, is_correct=False, is_accepted=True),
            *judged(5, is_correct=True, is_accepted=False),
            *judged(45, is_correct=True, is_accepted=True),
        ]
    )

    assert found.accuracy.value == 0.85
    assert found.balanced_accuracy == pytest.approx(0.85)
    assert found.macro_f1 == pytest.approx((90 / 105 + 80 / 95) / 2)
    assert found.kappa.value == pytest.approx(0.7)
    assert found.kappa.low is not None
    assert found.kappa.low < 0.7 < (found.kappa.high or 0)
    assert (found.false_accept.value, found.false_reject.value) == (0.2, 0.1)


def test_a_judge_that_always_says_the_same_agrees_no_more_than_chance() -> None:
    rejected = judged(5, is_correct=False, is_accepted=False)
    mixed = [*rejected, *judged(3, is_correct=True, is_accepted=False)]

    assert confusion(mixed).kappa.value == 0.0
    assert confusion(rejected).kappa.value is None
    assert confusion([]).kappa.value is None


@pytest.mark.parametrize(
    "counts",
    [(40, 10, 5, 45), (2, 0, 0, 2), (0, 1, 1, 0), (50, 0, 0, 50), (3, 1, 0, 2), (1, 0, 0, 99),
     (90, 5, 4, 1), (0, 30, 40, 0), (1, 99, 0, 1)],
)  # fmt: skip
def test_kappa_is_that_of_a_reference_and_its_interval_stays_in_range(counts: Counts) -> None:
    kappa = kappa_of(counts)

    assert kappa.value == pytest.approx(cohens_kappa(np.reshape(counts, (2, 2))).kappa)
    assert kappa.value is not None
    assert kappa.low is not None
    assert kappa.high is not None
    assert -1 <= kappa.low <= kappa.value <= kappa.high <= 1
    assert kappa.low < kappa.high


def test_two_answers_alike_do_not_prove_a_judge() -> None:
    kappa = kappa_of((1, 0, 0, 1))

    assert (kappa.value, kappa.high) == (1, 1)
    assert kappa.low is not None
    assert kappa.low < 0.1


@pytest.mark.parametrize("shares", [(0.4, 0.1, 0.05, 0.45), (0.48, 0.02, 0.02, 0.48)])
@pytest.mark.parametrize("num", [40, 200])
def test_the_interval_of_kappa_holds_the_true_one_as_often_as_it_says(
    shares: tuple[float, ...], num: int
) -> None:
    true = cohens_kappa(np.reshape(shares, (2, 2))).kappa

    drawn = np.random.default_rng(0).multinomial(num, shares, 300)
    found = [(one.low, one.high) for one in map(kappa_of, drawn)]

    held = [low <= true <= high for low, high in found if low is not None and high is not None]
    assert 0.92 <= np.mean(held) <= 0.99


def kappa_of(counts: Counts) -> Kappa:
    """Count: wrong and rejected, wrong and accepted, right and rejected, right and accepted."""
    answers = [
        one for num, made in zip(counts, four_answers(), strict=True) for one in [made] * num
    ]
    return confusion(answers).kappa


@cache
def four_answers() -> list[JudgedAnswer]:
    kinds = itertools.product((False, True), repeat=2)
    return [judged(1, is_correct=true, is_accepted=said)[0] for true, said in kinds]


def judged(times: int, *, is_correct: bool, is_accepted: bool) -> list[JudgedAnswer]:
    item = next(it for it in load_probes("held_out").items if it.is_correct == is_correct)
    return [JudgedAnswer(item=item, verdict=verdict_of(item, is_accepted=is_accepted))] * times


def verdict_of(item: LabelledAnswer, *, is_accepted: bool) -> VerdictRecord:
    return VerdictRecord(
        task="probe@1",
        sample_id=item.record.sample_id,
        outcome=Outcome.CORRECT if is_accepted else Outcome.WRONG,
        score=float(is_accepted),
    )


@pytest.mark.slow
def test_a_judge_that_likes_long_answers_is_seen_to(check: Check, serve: Any) -> None:
    def long_is_right(body: dict[str, Any]) -> str:
        return YES if len(asked_answer(prompt_text(body))) > 150 else NO

    _, card = check(*serve(long_is_right))

    bias = card["length_bias"]
    assert bias["wrong_answers"]["value"] > 0.8
    assert bias["wrong_answers"]["low"] > 0.5
    assert bias["right_answers"]["value"] > 0.8


@pytest.mark.slow
def test_a_judge_that_leans_on_the_order_is_seen_to(check: Check, serve: Any) -> None:
    def first_is_right(body: dict[str, Any]) -> str:
        text = prompt_text(body)
        (mark,) = FENCED.findall(text)
        item = planned.items[mark]
        return YES if text.find(item.record.reference) < text.find(mark[0]) else NO

    planned = Planned()
    _, card = check(*serve(first_is_right))

    effect = card["judge_effects"]["reference first"]
    assert effect["interval"][0] > 0.3
    assert {*card["judge_effects"]} == {"reference first", "question_1", "question_2", "question_3"}
    for wording in ("question_1", "question_2", "question_3"):
        low, high = card["judge_effects"][wording]["interval"]
        assert low < 0 < high
    assert card["consistency"]["value"] < 0.7


def test_a_judge_that_likes_one_letter_is_seen_to() -> None:
    letters = [it for it in load_probes("held_out").items if it.label_class == "letter"]
    said = [
        JudgedAnswer(
            item=item, verdict=verdict_of(item, is_accepted=item.record.completion == "(A)")
        )
        for item in (answered_by_letter(item) for item in letters)
    ]

    by_letter = letter_bias(said).accuracy_by_letter

    assert {name: share.value for name, share in by_letter.items()} == {
        "A": 1.0,
        "B": 0.0,
        "C": 0.0,
        "D": 0.0,
    }


def answered_by_letter(item: LabelledAnswer) -> LabelledAnswer:
    letter = "ABCD"[item.record.options.index(item.record.reference)]
    return replace(item, record=item.record.model_copy(update={"completion": f"({letter})"}))


def test_unreadable_votes_are_counted_and_the_scorecard_says_that_the_judge_is_none(
    check: Check, serve: Any, labelled: Path
) -> None:
    code, card = check(*serve(lambda _: GARBAGE), "--labels", labelled)

    assert code == 4
    assert card["parse_failures"] | {"low": 0, "high": 0} == {
        "k": 4, "n": 4, "value": 1.0, "low": 0, "high": 0,
    }  # fmt: skip
    assert card["overall"]["n_failed"] == card["overall"]["n"] == 2


def test_a_judge_that_nobody_can_read_is_measured_to_the_end(
    run: Run, serve: Any, out: Path
) -> None:
    code, text, _ = run("judge-check", *serve(lambda _: GARBAGE), "--out", out)

    assert code == 4
    first = text.lstrip().splitlines()[0]
    assert re.fullmatch(
        r"this judge cannot be used: unreadable votes: (19\d\d) of \1", first.strip()
    )
    assert len([*out.rglob("scorecard.json")]) == 1


def test_a_judge_that_decides_one_answer_in_twenty_cannot_be_used(
    run: Run, serve: Any, out: Path
) -> None:
    def mumbles(body: dict[str, Any]) -> str:
        ((mark, _),) = FENCED.findall(prompt_text(body))
        return NO if zlib.crc32(mark.encode()) % 20 == 0 else GARBAGE

    code, text, _ = run("judge-check", *serve(mumbles), "--out", out)

    assert code == 4
    assert "this judge cannot be used" in text


def test_a_second_check_asks_nobody_and_says_the_same(
    check: Check, serve: Any, labelled: Path
) -> None:
    judge = serve(lambda _: NO)
    _, first = check(*judge, "--labels", labelled)
    _, second = check(*judge, "--labels", labelled)

    assert first["usage"]["calls"] == 4
    assert second["usage"]["calls"] == 0
    assert second["usage"]["cached"] == 4
    assert first | {"usage": 0} == second | {"usage": 0}


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(
        "sample_id,label,question,reference,answer\n"
        "s1,right,Which organ?,liver,The liver lobe\n"
        "s2,wrong,Which organ?,liver,It looks like a spleen\n"
        "s3,unsure,Which organ?,liver,hepatic\n"
    )
    return path


def test_the_rules_pass_the_probe_set(check: Check, out: Path) -> None:
    code, card = check("--judge", "rules")

    classes = card["classes"]
    assert code == 0
    assert card["overall"]["n"] >= 600
    for name in ("negation_flip", "laterality", "dose", "attack"):
        assert classes[name]["false_accept"]["k"] == 0
        assert classes[name]["false_accept"]["n"] > 0
    for name in ("exact", "letter", "unit"):
        assert classes[name]["n_decided"] >= 0.9 * classes[name]["n"]
        assert classes[name]["accuracy"]["value"] >= 0.99
    assert all("n_abstained" in group for group in classes.values())
    (folder,) = (out / "judges" / "rules").iterdir()
    assert folder.name == card["digest"][:8]
    assert json.loads((folder / "scorecard.json").read_text()) == card
    picture = (folder / "scorecard.svg").read_text(encoding="utf-8")
    assert picture.rstrip().endswith("</svg>")


def test_the_picture_of_one_scorecard_is_one_file(tmp_path: Path, check: Check) -> None:
    _, card = check("--judge", "rules")
    paths = [tmp_path / name for name in ("one.svg", "two.svg")]
    for path in paths:
        draw(Scorecard.model_validate(card), path)

    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_table_names_every_class(run: Run, out: Path) -> None:
    code, text, errors = run("judge-check", "--judge", "rules", "--out", out)

    assert code == 0
    assert "judge rules · protocol rules · probe set 2, held out" in text
    _, again, _ = run("judge-check", "--judge", "rules", "--protocol", "rules,", "--out", out)
    assert again.splitlines()[:-1] == text.splitlines()[:-1]  # the last tells the seconds
    assert all(f" {name} " in text for name in ("laterality", "attack", "all"))
    assert "scorecard.json" in errors


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--judge", "rules", "--protocol", "medix"], "cannot be used with protocol 'medix'"),
        (["--judge", "nonsense"], "is not a model"),
        (["--judge", "openai:x"], "needs --judge-base-url"),
        (["--judge", "openai:x", "--protocol", "rules"], "cannot be used with protocol 'rules'"),
        (["--labels", "missing.csv"], "cannot be read"),
        (["--sheet", "missing"], "is not a run"),
    ],
)
def test_a_flag_that_cannot_be_is_one_line(run: Run, out: Path, argv: list[str], said: str) -> None:
    code, _, errors = run("judge-check", *argv, "--out", out)

    assert code == 2
    assert said in errors


def test_a_scorecard_that_could_not_be_kept_asks_nobody(
    run: Run, serve: Callable[[Script], list[str]], tmp_path: Path
) -> None:
    asked: list[dict[str, Any]] = []

    def says_yes(body: dict[str, Any]) -> str:
        asked.append(body)
        return YES

    judge = serve(says_yes)
    (tmp_path / "file").touch()
    code, _, errors = run("judge-check", *judge, "--out", tmp_path / "file")

    assert code == 2
    assert "file cannot be used: Not a directory" in errors
    assert not asked
