"""Every export is read back by its reader: pandas, lm-eval, a parser that forgives nothing."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import datasets
import pandas as pd
import pytest
from lm_eval.utils import get_file_task_name, get_sample_results_filenames, make_table

from medix_eval.cli.app import main
from medix_eval.data.tasks import load_tasks
from medix_eval.judging.protocol import load_protocol
from medix_eval.records import CompletionRecord, Kind, Outcome, VerdictRecord, Vote
from medix_eval.report.exports import citation
from medix_eval.report.matrix import latex_text
from medix_eval.results.store import read_run
from medix_eval.storage.bundled import bundled
from medix_eval.testing import write_run

GROUPS = {"both": ("first", "second_task")}


def test_csv_holds_the_scores_exactly(better: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(io.StringIO(exported(capsys, better, form="csv")))

    scores = read_run(better).scores
    first = table[table["name"] == "first"].iloc[0]
    assert first["score"] == scores.tasks["first"].score
    assert (first["interval_low"], first["interval_high"]) == scores.tasks["first"].interval
    assert first["correct"] == scores.tasks["first"].outcomes["correct"]
    assert table[table["what"] == "group"]["name"].tolist() == ["both"]


def test_parquet_holds_every_sample(better: Path, tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    assert run_cli(better, "--format", "parquet", "--out", str(path)) == 0

    table = pd.read_parquet(path)
    assert len(table) == 40
    assert table["score"].mean() == pytest.approx(0.9)
    assert list(table["options"][0]) == ["red & blue", "50 %"]
    assert table["points"][0].tolist() == [1.0, 1.0]
    assert table["completion"].str.contains("I think").all()


def test_restricted_samples_leave_without_their_texts(tmp_path: Path) -> None:
    run = write_run(tmp_path, samples(20, wrong=2), data_class="dua")
    run_cli(run, "--format", "parquet", "--out", str(tmp_path / "samples.parquet"))
    run_cli(run, "--format", "lm-eval", "--out", str(tmp_path / "lm"))

    table = pd.read_parquet(tmp_path / "samples.parquet")
    assert table["outcome"].value_counts().to_dict() == {"correct": 36, "wrong": 4}
    for column in ("prompt", "reference", "options", "completion", "answer", "replies", "columns"):
        assert table[column].isna().all()
    assert not list((tmp_path / "lm").rglob("samples_*"))


def test_latex_marks_the_best_and_what_ties_with_it(
    better: Path, worse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = latex_rows(exported(capsys, worse, better, form="latex"))

    assert table[0] == ["Task", "$n$", "worse\\_model", "better\\_model"]
    assert table[1][0] == "first"
    assert table[1][3].startswith("\\textbf{90.0}")
    assert table[2][0] == "second\\_task"
    assert {len(row) for row in table} == {4}


def test_latex_of_near_equals_says_so(
    better: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nearly = write_run(tmp_path, samples(20, wrong=3), model="nearly", groups=GROUPS)

    text = exported(capsys, better, nearly, form="latex")

    assert "85.0$^{\\ddagger}$" in text
    assert "may be chance" in text


def test_latex_marks_what_was_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = write_run(tmp_path, samples(20, wrong=2, unjudged=1))

    text = exported(capsys, partial, form="latex")

    assert "$^{\\dagger}$" in text
    assert "some samples have no score" in text


def test_runs_judged_in_other_ways_share_no_table(better: Path, tmp_path: Path) -> None:
    by_rules = write_run(tmp_path, samples(20, wrong=2, judge=None))

    assert run_cli(better, by_rules, "--format", "latex") == 2
    assert run_cli(better, by_rules, "--format", "csv") == 0


def test_markdown_has_a_column_a_model(
    better: Path, worse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = exported(capsys, better, worse, form="markdown").splitlines()

    assert lines[0] == "| task | n | better_model | worse_model |"
    assert lines[2].startswith("| first | 20 | **90.0** (")
    assert lines[4].startswith("| **both** | 40 | **90.0** (")


@pytest.mark.parametrize("task", ["medqa", "slake_vqa", "pmc_vqa_hard", "mmlu_anatomy"])
def test_bibtex_of_a_known_dataset_parses(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, samples(2, wrong=0, tasks=(task, "made_up")))

    text = exported(capsys, run, form="bibtex")

    (entry,) = bibtex_entries(text)
    assert {"title", "author", "year"} <= entry.keys()
    assert "keywords" not in entry
    assert "% no citation is known for made_up" in text


def test_every_dataset_of_others_has_a_citation() -> None:
    tasks = load_tasks([bundled("tasks")]).tasks

    missing = [name for name in tasks if citation(name) is None]
    assert [name for name in missing if not name.startswith("phantom")] == []


def test_the_methods_paragraph_names_every_setting(
    better: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = exported(capsys, better, form="methods")

    for said in (
        "better_model",
        "first@1 (n = 20",
        "max tokens 2048",
        "judged-by",
        "Of 40 samples",
    ):
        assert said in text
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("medix", "questions on a scale from 0 to 1 by the majority of 3 votes"),
        ("medix-compat", "asked again within one dialogue of 3 turns"),
        ("cascade", "after rules had settled what they are certain of; questions"),
        ("reward", "scale from 0 to 1 by one vote"),
        ("rules", "by rules alone, without a language model"),
    ],
)
def test_the_methods_paragraph_says_how_votes_become_a_score(
    protocol: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_protocol(protocol).judging_settings()
    judge = None if protocol == "rules" else "judged-by"
    run = write_run(tmp_path, samples(2, wrong=1, judge=judge), judging=settings)

    assert said in exported(capsys, run, form="methods")


def test_lm_eval_reads_its_own_form(better: Path, tmp_path: Path) -> None:
    run_cli(better, "--format", "lm-eval", "--out", str(tmp_path))
    (results,) = tmp_path.rglob("results_*.json")
    read = json.loads(results.read_text(encoding="utf-8"))

    table = make_table(read)
    names = get_sample_results_filenames([str(path) for path in results.parent.iterdir()])
    rows = datasets.load_dataset(
        "json",
        data_files=names,
        cache_dir=str(tmp_path / "c"),
    )["train"]

    assert re.search(r"first *\|1 *\|none *\| *0\|score *\|↑ *\| *0\.9 *\|± *\|0\.0688", table)
    assert "both" in make_table(read, "groups")
    assert {get_file_task_name(Path(name).name) for name in names} == {"first", "second_task"}
    assert sum(rows["score"]) / len(rows) == pytest.approx(0.9)
    assert set(rows["target"]) == {"50 %"}


def test_latex_text_is_inert() -> None:
    assert latex_text(r"a_b & 50% \input{x} $y$ #1 ~^") == (
        r"a\_b \& 50\% \textbackslash{}input\{x\} \$y\$ \#1 \textasciitilde{}\textasciicircum{}"
    )


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("better")
    return write_run(folder, samples(20, wrong=2), model="better_model", groups=GROUPS)


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worse")
    return write_run(folder, samples(20, wrong=15), model="worse_model", groups=GROUPS)


def samples(
    n: int,
    *,
    wrong: int,
    unjudged: int = 0,
    judge: str | None = "judged-by",
    tasks: tuple[str, ...] = ("first", "second_task"),
) -> list[tuple[CompletionRecord, VerdictRecord]]:
    """Return `n` samples a task; the last `wrong` of them are wrong, the first are unjudged."""
    return [
        sample(task, row, right=row < n - wrong, is_judged=row >= unjudged, judge=judge)
        for task in tasks
        for row in range(n)
    ]


def sample(
    task: str, row: int, *, right: bool, is_judged: bool, judge: str | None
) -> tuple[CompletionRecord, VerdictRecord]:
    outcome = Outcome.CORRECT if right else Outcome.WRONG
    points = float(right)
    votes = [Vote(judge=judge, prompt=f"p{at}", key="k", points=points) for at in (1, 2) if judge]
    return (
        CompletionRecord(
            task=f"{task}@1",
            sample_id=f"{task}-{row}",
            row=row,
            kind=Kind.MULTIPLE_CHOICE,
            prompt="Which?",
            reference="50 %",
            options=("red & blue", "50 %"),
            completion="<think>I think</think>50 %",
            finish_reason="stop",
        ),
        VerdictRecord(
            task=f"{task}@1",
            sample_id=f"{task}-{row}",
            outcome=outcome if is_judged else Outcome.UNJUDGED,
            score=points if is_judged else None,
            judge_score=points if judge else None,
            answer="50 %",
            votes=tuple(votes),
        ),
    )


def run_cli(*arguments: Path | str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["export", *map(str, arguments)])
    return int(str(ended.value.code))


def exported(capsys: pytest.CaptureFixture[str], *runs: Path, form: str) -> str:
    assert run_cli(*runs, "--format", form) == 0
    return capsys.readouterr().out


def latex_rows(text: str) -> list[list[str]]:
    """Read a booktabs table; what LaTeX would stumble over fails here."""
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    assert not re.search(r"(?<!\\)[%#]", text.partition("\n")[2])
    begun = re.findall(r"\\begin\{(\w+)\}", text)
    assert begun == re.findall(r"\\end\{(\w+)\}", text)[::-1] == ["table", "tabular"]
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert columns
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    rows = [line for line in body.splitlines() if not line.startswith(("\\toprule", "\\midrule"))]
    assert all(row.endswith(r" \\") for row in rows)
    cells = [re.split(r"(?<!\\)&", row.removesuffix(r" \\")) for row in rows]
    assert {len(row) for row in cells} == {len(columns[1])}
    return [[cell.strip() for cell in row] for row in cells]


def bibtex_entries(text: str) -> list[dict[str, str]]:
    """Read BibTeX strictly: balanced braces, `name = {value}` fields, nothing between entries."""
    found = []
    rest = text.strip()
    while rest:
        if rest.startswith("%"):
            rest = rest.partition("\n")[2].lstrip()
            continue
        head = re.match(r"@(\w+)\{([\w:]+),\n", rest)
        assert head, rest[:60]
        depth = 1
        end = rest.index("{") + 1
        while depth:
            depth += {"{": 1, "}": -1}.get(rest[end], 0)
            end += 1
        fields = re.findall(r"  (\w+) = \{(.*)\},?\n", rest[head.end() : end])
        assert len(fields) == rest[head.end() : end].count(" = ")
        found.append(dict(fields))
        rest = rest[end:].lstrip()
    return found
