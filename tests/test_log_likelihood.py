"""Options by log-likelihood: asked here, the oracle is stock lm-eval on the same rows and model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from lm_eval.tasks import TaskManager
from scripted_servers import Run, records
from text_models import plain_tokenizer, write_text_model

from medix_eval.data.tasks import load_tasks
from medix_eval.records import Kind
from medix_eval.storage.bundled import bundled
from medix_eval.testing import ScriptedServer

HUB = Path(__file__).resolve().parent / "fixtures" / "hub"
NAMES = ["medqa_ll", "medmcqa_ll", "usmle_sa_ll", "pubmedqa_ll", "mmlu_anatomy_ll"]
BEGIN = "<|im_end|>"
MINE = """
include: {base}
task: mine
output_type: multiple_choice
{more}
"""


@pytest.fixture(scope="module")
def weigher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random text model that is sure of itself, so that options differ."""
    from tokenizers.processors import TemplateProcessing  # noqa: PLC0415

    tokenizer = plain_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token  # which every text begins with, as Llama's do
    begins = {"single": f"{BEGIN} $A", "special_tokens": [(BEGIN, tokenizer.bos_token_id)]}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(**begins)
    assert tokenizer.bos_token == BEGIN
    sure = {"max_position_embeddings": 8192, "initializer_range": 1.0}
    return write_text_model(tmp_path_factory.mktemp("weigher"), tokenizer, **sure)


def ours(run: Run, model: Path, *names: str, out: Path, more: tuple[str, ...] = ()) -> Any:
    argv = ("--model", model, "--backend", "hf", "--tasks", ",".join(names), "--out", out)
    code, printed, err = run(*argv, "--data-root", HUB, "--protocol", "rules", "--json", *more)

    assert code == 0, err
    return json.loads(printed)


def stock(
    model: Path, *names: str, include: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.chdir(HUB)  # where stock lm-eval finds ORG/NAME as a folder
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={model},dtype=float32",
        tasks=list(names),
        task_manager=TaskManager(include_path=str(include), include_defaults=False),
        bootstrap_iters=0,
        device="cpu",
    )
    return found


def likelihoods(scores: Any) -> dict[tuple[str, int], list[float]]:
    return {
        (line["task"].partition("@")[0], line["row"]): line["log_likelihoods"]
        for line in records(Path(scores["run"]).parents[1], "completions.jsonl")
    }


@pytest.mark.slow
def test_scores_and_likelihoods_are_those_of_stock_lm_eval(
    run: Run, weigher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ours(run, weigher, *NAMES, out=tmp_path)
    theirs = stock(weigher, *NAMES, include=Path(str(bundled("tasks"))), monkeypatch=monkeypatch)

    found = likelihoods(mine)
    rows = [(name, sample) for name in NAMES for sample in theirs["samples"][name]]
    assert len(found) == len(rows) == 48
    for name, sample in rows:
        expected = [float(response[0]) for response in sample["filtered_resps"]]
        assert found[name, sample["doc_id"]] == pytest.approx(expected, abs=1e-4)
    for name in NAMES:
        task, result = mine["tasks"][name], theirs["results"][name]
        assert task["score"] == result["acc,none"]
        assert task["metrics"] == {"acc_norm": result["acc_norm,none"]}
    assert len({mine["tasks"][name]["score"] for name in NAMES}) > 2
    assert any(
        mine["tasks"][name]["score"] != mine["tasks"][name]["metrics"]["acc_norm"] for name in NAMES
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        pytest.param("", id="nothing more"),
        pytest.param('doc_to_text: "{{ sent1 }} It is   "', id="spaces before the boundary"),
        pytest.param('target_delimiter: "\\n- "', id="another delimiter"),
        pytest.param('target_delimiter: ""', id="no delimiter"),
        pytest.param('doc_to_text: "<|im_end|>{{ sent1 }}"', id="a special token"),
    ],
)
def test_a_file_of_ones_own_that_includes_a_bundled_one_is_asked_alike(
    more: str, run: Run, weigher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(str(bundled("tasks"))) / "text" / "medqa.yaml"
    (tmp_path / "mine.yaml").write_text(MINE.format(base=base, more=more))

    given = ("--include-path", str(tmp_path))
    mine = ours(run, weigher, "mine", out=tmp_path / "out", more=given)
    theirs = stock(weigher, "mine", include=tmp_path, monkeypatch=monkeypatch)

    found = likelihoods(mine)
    for sample in theirs["samples"]["mine"]:
        expected = [float(response[0]) for response in sample["filtered_resps"]]
        assert found["mine", sample["doc_id"]] == pytest.approx(expected, abs=1e-4)
    assert mine["tasks"]["mine"]["score"] == theirs["results"]["mine"]["acc,none"]


@pytest.mark.slow
def test_no_judge_is_asked_and_written_answers_run_beside_them(
    run: Run, weigher: Path, tmp_path: Path
) -> None:
    with ScriptedServer(lambda _: '{"score": 1}') as judge:
        argv = ("--model", weigher, "--backend", "hf", "--tasks", "medqa,medqa_ll", "--limit", "3")
        code, printed, err = run(
            *argv,
            *("--data-root", HUB, "--out", tmp_path, "--json"),
            *("--judge", "openai:scripted", "--judge-base-url", judge.url),
            *("--set", "generation.max_tokens=2"),
        )

    assert code == 0, err
    tasks = json.loads(printed)["tasks"]
    verdicts = records(json.loads(printed)["run"], "verdicts.jsonl")
    votes = [one for one in verdicts if one["task"] == "medqa_ll@1" and one.get("votes")]
    assert votes == []
    assert (tasks["medqa_ll"]["n_scored"], "metrics" in tasks["medqa"]) == (3, False)
    written = records(Path(json.loads(printed)["run"]).parents[1], "completions.jsonl")
    assert {bool(one.get("log_likelihoods")) for one in written} == {True, False}


@pytest.mark.slow
def test_a_prompt_that_is_too_long_is_rejected_and_not_cut(
    run: Run, weigher: Path, tmp_path: Path
) -> None:
    config = json.loads((weigher / "config.json").read_text())
    short = tmp_path / "short"
    short.mkdir()
    for file in weigher.iterdir():
        (short / file.name).write_bytes(file.read_bytes())
    config["max_position_embeddings"] = 200
    (short / "config.json").write_text(json.dumps(config))

    mine = ours(run, short, "medqa_ll", out=tmp_path / "out")

    outcomes = mine["tasks"]["medqa_ll"]["outcomes"]
    assert outcomes["rejected"] > 0
    assert mine["tasks"]["medqa_ll"]["n_scored"] == 10


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("kind", ["openai", "replay"])
def test_a_model_that_tells_no_log_probabilities_is_refused_before_anything_is_sent(
    run: Run, tmp_path: Path, kind: str, dry: tuple[str, ...]
) -> None:
    replay = tmp_path / "answers.jsonl"
    replay.write_text("")
    with ScriptedServer(lambda _: "A") as server:
        model = {
            "openai": ("--model", "openai:scripted", "--base-url", server.url),
            "replay": ("--model", f"replay:{replay}"),
        }[kind]
        code, _, err = run(
            *model, *dry, "--tasks", "medqa,medqa_ll", "--data-root", HUB, "--protocol", "rules"
        )
        requests = len(server.requests)

    assert (code, requests) == (2, 0)
    assert "tells no log-probabilities of options: medqa_ll\n" in err
    assert "--backend hf" in err


@pytest.mark.slow
def test_a_run_that_was_written_is_not_resumed_as_one_by_likelihood(
    run: Run, weigher: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    base = Path(str(bundled("tasks"))) / "text" / "medqa.yaml"
    file.write_text(yaml.safe_dump({"include": str(base), "task": "mine"}))
    argv = ("--model", weigher, "--backend", "hf", "--tasks", "mine", "--data-root", HUB)
    rest = ("--include-path", tmp_path, "--out", tmp_path / "out", "--protocol", "rules")
    short = (*rest, "--set", "generation.max_tokens=2")
    assert run(*argv, *short)[0] == 0
    file.write_text(MINE.format(base=base, more=""))

    code, _, err = run(*argv, *short)

    assert code == 2, err
    assert "mine" in err


def test_every_text_task_with_options_has_a_twin_that_differs_in_nothing_else() -> None:
    catalogue = load_tasks([bundled("tasks")])
    plain = {
        name: file
        for name, file in catalogue.tasks.items()
        if file.settings.kind is Kind.MULTIPLE_CHOICE
        and (file.settings.modality, file.output_type) == ("text", "generate_until")
        and "[fallback=" not in name
    }

    assert {*catalogue.groups["medix_ll"]} == {f"{name}_ll" for name in plain}
    for name, file in plain.items():
        twin = catalogue.tasks[f"{name}_ll"]
        assert twin.settings == file.settings.model_copy(update={"fallbacks": ()})
        assert (twin.dataset_path, twin.dataset_name) == (file.dataset_path, file.dataset_name)
        assert (twin.split, twin.revision) == (file.split, file.revision)
        assert catalogue.groups_of(twin.name) == ("medix_ll",)
