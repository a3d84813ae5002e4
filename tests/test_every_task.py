"""Every task from its data to its score: right answers score 1, other samples' answers score 0.

Choices and yes/no questions are scored by the rules alone. Free answers and reports go through the
judge, which is scripted: it sees nothing but the rendered prompt, and must find question,
reference and answer in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import FENCED

from medix_eval.cli.app import main
from medix_eval.data.lm_task import open_task
from medix_eval.data.samples import read_samples
from medix_eval.data.tasks import load_tasks
from medix_eval.records import IMAGE_MARK, Kind, Sample
from medix_eval.storage.bundled import bundled
from medix_eval.testing import ScriptedServer, prompt_text

HUB = Path(__file__).parent / "fixtures" / "hub"
CATALOGUE = load_tasks([bundled("tasks")])
NAMES = sorted(
    name
    for name, file in CATALOGUE.tasks.items()
    if file.dataset_path and file.output_type == "generate_until"
)
BY_RULES = {Kind.MULTIPLE_CHOICE, Kind.CLOSED}


@cache
def samples_of(name: str) -> tuple[Sample, ...]:
    file = CATALOGUE.tasks[name]
    task = open_task(file, data_root=HUB)
    rows = range(len(task.rows))
    found = read_samples(task, rows, key=file.key, done=frozenset(), taken=set())
    return tuple(sample for sample in found if isinstance(sample, Sample))


def right(sample: Sample) -> str:
    if sample.options:
        return "ABCDEFGHI"[sample.options.index(sample.reference)]
    return sample.reference


def wrong(sample: Sample) -> str:
    """Return the answer to another sample; of a choice another option's letter."""
    if sample.options:
        place = sample.options.index(sample.reference)
        return "ABCDEFGHI"[(place + 1) % len(sample.options)]
    others = [other.reference for other in samples_of(sample.task.partition("@")[0])]
    return next(other for other in others if other.lower() != sample.reference.lower())


def grade(body: dict[str, Any]) -> str:
    """Judge as a person would who has nothing but the prompt: look up what it tells, compare."""
    text = prompt_text(body)
    fence = FENCED.search(text)
    assert fence is not None, text
    before, answer, after = text.split(f"\n{fence[1]}\n")
    told = f"{before}\n{after}"
    asked = [
        sample
        for name in NAMES
        for sample in samples_of(name)
        if re.search(rf"\n(?:[A-I](?: or [A-I])*\. )?{re.escape(sample.reference)}\n", told)
        and _plain(sample.prompt[sample.question_at :]) in _plain(told)
    ]
    assert asked, f"no question with its reference in {text}"
    top = 5 if asked[0].kind is Kind.REPORT else 1
    return json.dumps({"score": top if any(answer == right(one) for one in asked) else 0})


def _plain(text: str) -> str:
    return " ".join(text.replace(IMAGE_MARK, " ").split())


@pytest.fixture(scope="module")
def judge() -> Iterator[ScriptedServer]:
    with ScriptedServer(grade) as running:
        yield running


def named(by_rules: str) -> list[str]:
    """Return the tasks that the rules can score alone, or the others."""
    kinds = {name: {sample.kind for sample in samples_of(name)} for name in NAMES}
    return [name for name in NAMES if (kinds[name] <= BY_RULES) == (by_rules == "rules")]


@pytest.mark.parametrize(("answers", "score"), [(right, 1.0), (wrong, 0.0)])
@pytest.mark.parametrize("protocol", ["rules", "medix"])
def test_right_answers_score_one_and_others_answers_zero(
    judge: ScriptedServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    protocol: str,
    answers: Callable[[Sample], str],
    score: float,
) -> None:
    names = named(protocol)
    lines = [
        {"task": name, "sample_id": sample.id, "completion": f"<answer>{answers(sample)}</answer>"}
        for name in names
        for sample in samples_of(name)
    ]
    replay = tmp_path / "answers.jsonl"
    replay.write_text("".join(json.dumps(line) + "\n" for line in lines))
    grader = ("--judge", "openai:scripted", "--judge-base-url", judge.url)

    with pytest.raises(SystemExit) as stopped:
        main(
            [
                *("--model", f"replay:{replay}", "--tasks", ",".join(names), "--json"),
                *("--data-root", str(HUB), "--out", str(tmp_path / "out")),
                *("--protocol", protocol, *(grader if protocol == "medix" else ())),
            ]
        )

    printed = capsys.readouterr()
    found = json.loads(printed.out)["tasks"]
    assert stopped.value.code == 0, printed.err
    assert sorted(found) == names
    for name in names:
        samples = samples_of(name)
        expected = score
        if samples[0].parser:  # the published parser finds no short answer right
            expected = score * sum(bool(sample.options) for sample in samples) / len(samples)
        assert (found[name]["n"], found[name]["n_scored"]) == (len(samples), len(samples)), name
        assert found[name]["score"] == pytest.approx(expected), name


def test_every_task_is_scored_one_way_or_the_other() -> None:
    assert sorted(named("rules") + named("medix")) == NAMES
    assert {"medqa", "pmc_vqa", "mmmu_public_health"} <= set(named("rules"))
    assert {"slake_vqa", "mimic_cxr_report_generation", "mmmu_pharmacy"} <= set(named("medix"))
