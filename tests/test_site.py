"""What the site holds once it is built: figures with sources, no withdrawn or private text."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invented_boards import VQA, built, right
from invented_runs import InventedRuns

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError
from medix_eval.results.reproduction import load_published
from medix_eval.site.boards import facts_of, load_facts
from medix_eval.site.build import published_tables, sources
from medix_eval.storage.bundled import bundled


def test_a_folder_of_runs_stands_for_all_of_them(
    runs: InventedRuns, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    runs.make("a", right(0.5))
    runs.make("b", right(0.6))

    code, out, _ = run("leaderboard", runs.out, "--out", tmp_path / "site")

    assert code == 0
    assert "2 models, 5 benchmarks (real)" in out


def test_two_builds_of_one_set_of_runs_are_equal(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    paths = [runs.make(name, right(share)) for name, share in (("a", 0.5), ("b", 0.7))]
    for out in (tmp_path / "one", tmp_path / "two"):
        built(paths, out, catalogue)

    files = sorted(
        path.relative_to(tmp_path / "one")
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    )

    assert len(files) > 15
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_new_build_leaves_no_page_of_a_withdrawn_run(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    paths = [runs.make("stays", right(0.5)), runs.make("goes", right(0.6))]
    built(paths, tmp_path / "site", catalogue)

    built(paths[:1], tmp_path / "site", catalogue)

    assert {page.stem for page in (tmp_path / "site").rglob("models/*.html")} == {"stays"}


def test_a_folder_of_other_files_is_not_replaced(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")

    with pytest.raises(ConfigError, match="is not a medix-eval site"):
        built([runs.make("a", right(0.5))], tmp_path / "thesis", catalogue)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years"


def test_the_downloads_hold_every_score(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    built([runs.make("=cmd()", right(0.5))], tmp_path / "site", catalogue)

    (table,) = (tmp_path / "site").rglob("scores.csv")
    (content,) = (tmp_path / "site").rglob("scores.json")
    lines = list(csv.DictReader(table.read_text().splitlines()))
    assert {line["task"]: line["score"] for line in lines if line["task"] in VQA} == dict.fromkeys(
        VQA, "0.5"
    )
    assert {line["model"] for line in lines} == {"'=cmd()"}
    assert json.loads(content.read_text())["models"][0]["tasks"]["rad_vqa"]["score"] == 0.5


def test_text_of_data_that_is_not_public_is_on_no_page(
    runs: InventedRuns, tmp_path: Path, catalogue: Catalogue
) -> None:
    answers = right(0.5, tasks=("mimic_cxr_report_generation", "medqa"))
    path = runs.make("a", answers, completion="a sentence of the ward")
    lines = (path / "completions.jsonl").read_text().splitlines()
    lines = [
        line.replace("of the ward", "of the archive") if "medqa@" in line else line
        for line in lines
    ]
    (path / "completions.jsonl").write_text("\n".join(lines) + "\n")

    built([path], tmp_path / "site", catalogue)

    files = [file for file in (tmp_path / "site").rglob("*.*") if file.is_file()]
    assert not [file for file in files if b"of the ward" in file.read_bytes()]
    assert [file.stem for file in files if b"of the archive" in file.read_bytes()] == ["a"]


def test_facts_of_a_later_file_replace_single_facts(tmp_path: Path) -> None:
    mine = tmp_path / "models.yaml"
    mine.write_text("models: {MBZUAI/MediX-R1-8B: {licence: other}}")

    facts = load_facts([bundled("leaderboard") / "models.yaml", mine])

    known = facts_of("openai:MBZUAI/MediX-R1-8B@1a2b", facts)
    assert (known.licence, known.parameters_b) == ("other", 8)


def test_a_misspelt_fact_is_named(tmp_path: Path) -> None:
    mine = tmp_path / "models.yaml"
    mine.write_text("models: {a: {license: mit}}")

    with pytest.raises(ConfigError, match=r"models\.a\.license"):
        load_facts([mine])


def test_every_published_figure_is_shown_once_with_its_source() -> None:
    figures = load_published(bundled("leaderboard") / "published_results.csv")
    tables = published_tables(figures)

    assert sum(len(table.cells) for table in tables) == len(figures) == 299
    assert {figure.source for table in tables for figure in table.cells.values()} == set(
        sources(figures)
    )


def test_the_command_imports_nothing_heavy(runs: InventedRuns, tmp_path: Path) -> None:
    path = runs.make("a", right(0.5))
    script = (
        "import sys\nfrom medix_eval.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'datasets', 'lm_eval', 'pandas', 'openai', 'vllm'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, "leaderboard", path, "--out", tmp_path / "site"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param(
            {"note": "Near the <published> ones."}, "Near the &lt;published&gt;", id="note"
        ),
        pytest.param({"condition": {"imported": "official"}}, "IMPORTED.", id="imported"),
        pytest.param({"synthetic": True}, "SYNTHETIC.", id="synthetic"),
    ],
)
def test_a_caveat_stands_on_every_page_of_its_board_and_in_no_other(
    runs: InventedRuns,
    tmp_path: Path,
    catalogue: Catalogue,
    settings: dict[str, Any],
    said: str,
) -> None:
    paths = [
        runs.make("plain", right(0.5)),
        runs.make("a", right(0.5), protocol="other", **settings),
    ]

    out = built(paths, tmp_path / "site", catalogue).front.parent

    (board,) = (page.stem for page in out.glob("other-*.html"))
    marked = {page for page in out.rglob("*.html") if said in page.read_text()}
    assert marked == {out / f"{board}.html", *(out / "boards" / board).rglob("*.html")}
