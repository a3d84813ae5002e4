"""What others add from outside the package, in one place each: an adapter, a protocol, a task."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from scripted_servers import HUB, Run, Serve, candidate, judge, records

from medix_eval.models.resolve import ModelFlags

PARROT = '''
"""A parrot says what its name says; asked for a verdict, it gives full marks."""

from contextlib import asynccontextmanager
from dataclasses import dataclass

from medix_eval.models.chat import Completion


@dataclass(frozen=True, kw_only=True)
class Parrot:
    name: str
    hosts = ()
    devices = frozenset()
    takes_images = True
    concurrency = 4
    adapts = False

    def identity(self):
        return {"kind": "parrot", "id": self.name}

    @asynccontextmanager
    async def open(self, logs):
        yield self

    async def complete(self, prompt, sampling):
        word = self.name.partition(":")[2]
        text = f"<answer>{word}</answer>" if prompt.schema is None else '{"score": 1}'
        return Completion(text=text, finish_reason="stop")


GIVEN = []


def parrot(name, flags, *, max_tokens, out):
    GIVEN.append(flags)
    return Parrot(name=name)
'''
TASK = """
task: ward
class: !function medix_eval.lm_task.MedixTask
dataset_path: ward/questions
test_split: test
output_type: generate_until
doc_to_text: "{{ question }}"
doc_to_target: answer
generation_kwargs: {until: [], do_sample: false, max_gen_toks: 2048}
metadata:
  version: 1
  medix: {kind: open, modality: text, data_class: public, licence: internal, num_samples: null}
"""
ASKED = ("--tasks", "medqa", "--limit", "2", "--data-root", HUB, "--json")
RULES = ("--protocol", "rules")
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with one adapter where pip would."""

    def installed(code: str = PARROT, *, name: str = "parrots", prefix: str = "parrot") -> None:
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[medix_eval.models]\n{prefix} = {name}:parrot\n")
        monkeypatch.syspath_prepend(site)

    yield installed
    for name in ("parrots", "budgies"):
        sys.modules.pop(name, None)


def test_an_adapter_of_others_answers(install: Install, run: Run, tmp_path: Path) -> None:
    install()
    code, out, err = run("--model", "parrot:A", *ASKED, *RULES, "--out", tmp_path / "out")

    assert code == 0, err
    assert json.loads(out)["model"] == "parrot:A"
    answered = records(tmp_path / "out", "completions.jsonl")
    assert [line["completion"] for line in answered] == ["<answer>A</answer>"] * 2


def test_an_adapter_of_others_judges(install: Install, run: Run, tmp_path: Path) -> None:
    install()
    code, out, err = run(
        *("--model", "parrot:A", "--judge", "parrot:polly", *ASKED, "--out", tmp_path / "out")
    )

    assert code == 0, err
    scores = json.loads(out)
    assert scores["judges"][0]["id"] == "parrot:polly"
    assert scores["tasks"]["medqa"]["score"] == 1.0


def test_an_adapter_of_others_gets_every_setting_there_is(
    install: Install, run: Run, tmp_path: Path
) -> None:
    """A setting that no flag moves would be none."""
    install()
    flags = {
        "backend": "vllm", "base-url": "http://nest/v1", "api-key-env": "SEED", "gpus": "0",
        "allow-model-alias": "P", "vllm-args": "--enforce-eager", "concurrency": "2",
        "request-timeout": "3", "server-timeout": "4", "patience": "5",
    }  # fmt: skip
    argv = [text for flag, value in flags.items() for text in (f"--{flag}", value)]
    code, _, err = run(
        *("--model", "parrot:A", *argv, "--keep-server", *ASKED, *RULES, "--out", tmp_path)
    )

    assert code == 0, err
    (given,) = sys.modules["parrots"].GIVEN
    unset = asdict(ModelFlags(role="judge"))
    assert [name for name, value in asdict(given).items() if value == unset[name]] == []


def test_a_prefix_that_nobody_registers_is_told_those_of_others(install: Install, run: Run) -> None:
    install()
    code, _, err = run("--model", "parot:A", *ASKED, *RULES)

    assert code == 2
    assert "or parrot:NAME of a plug-in" in err


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not_there'"),
        ("macaw = 1", "module 'parrots' has no attribute 'parrot'"),
        ("def parrot(name): ...", "parrot() got an unexpected keyword argument 'max_tokens'"),
    ],
)
def test_an_adapter_that_fails_is_one_line_that_names_its_distribution(
    install: Install, run: Run, code: str, said: str
) -> None:
    install(code)
    status, _, err = run("--model", "parrot:A", *ASKED, *RULES)

    assert status == 2
    line, hint = err.splitlines()
    assert line == f"error: parrot:A: the plug-in parrots failed: {said}"
    assert "parrots:parrot" in hint


def test_two_distributions_may_not_claim_one_prefix(install: Install, run: Run) -> None:
    install()
    install(name="budgies")
    code, _, err = run("--model", "parrot:A", *ASKED, *RULES)

    assert code == 2
    assert "parrot: is claimed by several plug-ins: budgies, parrots" in err


def test_no_adapter_of_others_takes_a_name_of_ours(
    install: Install, run: Run, tmp_path: Path
) -> None:
    install(prefix="replay")
    replay = f"replay:{tmp_path / 'nowhere.jsonl'}"
    code, _, err = run("--model", replay, *ASKED, *RULES, "--out", tmp_path / "out")

    assert (code, "does not exist" in err) == (2, True)


def test_a_protocol_of_others_is_one_file_and_its_prompt(
    run: Run, serve: Serve, tmp_path: Path, repository: Path
) -> None:
    settings: dict[str, Any] = yaml.safe_load((repository / "judges" / "medix.yaml").read_text())
    settings["name"] = "ward-round"
    for rubric in ("question", "report"):
        own = {"prompts": ["mine.jinja"], "decide": "mean", "crossed": False, "reply": "score"}
        settings["judge"][rubric] |= own
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "mine.jinja").write_text(
        'Ward round: {{ question }} {{ reference }} {{ answer }} Reply {"score": 0} or 1.'
    )
    model, grader = serve(lambda _: "<answer>A</answer>"), serve(lambda _: '{"score": 1}')
    code, out, err = run(
        *(*candidate(model), *judge(grader), *ASKED, "--protocol", tmp_path / "mine.yaml"),
        *("--out", tmp_path / "out"),
    )

    assert code == 0, err
    scores = json.loads(out)
    assert scores["protocol"]["name"] == "ward-round"
    assert scores["tasks"]["medqa"]["score"] == 1.0
    asked = [request["messages"][-1]["content"] for request in grader.requests]
    assert len(asked) == 2
    assert all(text.startswith("Ward round:") for text in asked)


def test_a_task_of_others_is_one_file(run: Run, tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "ward.yaml").write_text(TASK)
    rows = [{"question": "Which bed?", "answer": "four"}, {"question": "Whose?", "answer": "Ann"}]
    folder = tmp_path / "data" / "ward" / "questions"
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "test.parquet")
    model = serve(lambda body: "four" if "bed" in str(body) else "Ann")
    code, out, err = run(
        *(*candidate(model), *RULES, "--tasks", "ward", "--include-path", tmp_path / "tasks"),
        *("--data-root", tmp_path / "data", "--out", tmp_path / "out", "--json"),
    )

    assert code == 0, err
    assert json.loads(out)["tasks"]["ward"]["score"] == 1.0
