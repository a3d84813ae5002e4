"""Nothing that people share tells where on a machine model, data and runs lie."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from packed_files import contents
from scripted_servers import HUB, Run, Serve

from medix_eval.phantom.dataset import model_folder
from medix_eval.results.store import slug
from medix_eval.storage.bundled import bundled

V0_1 = HUB.parent / "v0_1"
PRIVATE = "private-7f3a"


def traces(shared: Path) -> list[str]:
    """Return every place of the shared files that names the private folder."""
    files = [path for path in shared.rglob("*") if path.is_file()]
    assert len(files) > 30
    return sorted(
        f"{name}: …{text[max(0, at - 60) : at + 30]!r}…"
        for path in files
        for name, text in contents(str(path.relative_to(shared)), path.read_bytes())
        for at in [text.find(PRIVATE.encode())]
        if at >= 0
    )


def share(run: Run, one: Path, two: Path, *, private: Path, shared: Path) -> None:
    """Write every file of two runs that is meant for others."""
    for form in ("markdown", "csv", "parquet", "latex", "bibtex", "methods", "lm-eval"):
        run("export", one, two, "--format", form, "--out", shared / f"export.{form}")
    run("report", one, two, "--data-root", private / "mirror", "--out", shared / "comparison.html")
    run("report", one, "--data-root", private / "mirror")
    policy = shared / "policy.yaml"
    floors = "floors: [{task: medqa, at_least: 0.1}]"
    policy.write_text(f"{{name: ward, {floors}, allow_limited: true, allow_synthetic: true}}")
    gate = ("gate", policy, one, "--baseline", two)
    for number, command in enumerate([gate, ("compare", one, two)]):
        for form in ("", "--json"):
            said = run(*filter(None, (*command, form)))[1]
            (shared / f"said-{number}{form}.txt").write_text(said)
    run(*gate, "--page", shared / "gate.html")
    run("leaderboard", one, two, "--allow-synthetic", "--out", shared / "site")
    assert run("submit", one, "--out", shared / "zips", "--allow-synthetic")[0] == 0
    assert run("submit", one, "--out", shared / "zips", "--allow-synthetic", "--official")[0] == 0
    run("judge-check", "--sheet", one, "--out", shared)
    for judged in private.glob("results/*/*/judged/*"):
        to = shared / f"run-{judged.parents[1].name}" / judged.name
        shutil.copytree(judged, to)
        (to / "judging.json").unlink()


def test_no_file_that_is_shared_names_a_private_folder(run: Run, tmp_path: Path) -> None:
    private, shared = tmp_path / PRIVATE, tmp_path / "shared"
    shared.mkdir()
    shutil.copytree(HUB, private / "mirror")
    shutil.copytree(model_folder(), private / "weights" / "my-model")
    answers = private / "answers.jsonl"
    answers.write_text('{"task": "rad_vqa", "sample_id": "none", "completion": "yes"}\n')
    where = ("--data-root", private / "mirror", "--out", private / "results")
    common = ("--tasks", "rad_vqa,medqa", "--limit", "2", "--protocol", "rules", *where)
    run("--model", private / "weights" / "my-model", "--backend", "hf", *common)
    run("--model", f"replay:{answers}", *common)
    one, two = sorted(path.parent for path in private.glob("results/*/*/run.json"))

    share(run, one, two, private=private, shared=shared)

    assert not traces(shared)


def test_nor_does_one_name_what_a_server_or_a_flag_names(
    run: Run, serve: Serve, tmp_path: Path
) -> None:
    """Servers list models by their folder, and files of all sorts are named by flags."""
    private, shared = tmp_path / PRIVATE, tmp_path / "shared"
    shared.mkdir()
    shutil.copytree(HUB, private / "mirror")
    model, judge = str(private / "weights" / "m-1"), str(private / "judges" / "j-1")
    server, jury = serve(lambda _: "B", model=model), serve(lambda _: '{"score": 1}', model=judge)
    template = private / "template.jinja"
    template.write_text("{{ prompt }}")
    shutil.copytree(bundled("judges"), private / "rules-of-ours")
    prompts = private / "rules-of-ours" / "prompts"
    (tasks := private / "tasks").mkdir()
    (table := private / "ward.csv").write_text("question,answer\nWhere?,lung\nWhat?,nodule\n")
    (tasks / "ward.yaml").write_text(
        f"""
task: ward_vqa
class: !function medix_eval.lm_task.MedixTask
dataset_path: csv
dataset_kwargs: {{data_files: {{test: {table}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{ question }}}}"
doc_to_target: answer
generation_kwargs: {{until: [], do_sample: false, max_gen_toks: 2048}}
metadata:
  version: 1
  medix: {{kind: open, modality: text, data_class: public, licence: internal, num_samples: null}}
"""
    )
    asked = (
        *("--model", f"openai:{model}", "--base-url", server.url),
        *("--judge", f"openai:{judge}", "--judge-base-url", jury.url, "--limit", "2"),
        *("--data-root", private / "mirror", "--out", private / "results"),
    )
    changed = (
        *("--set", f"prompt.template={template}", "--include-path", tasks),
        *("--set", f"judge.question.prompts=[{prompts}/question_1.jinja]"),
    )
    repeat = ("--repeat", "2", "--set", "generation.temperature=0.5")
    for more in ((), repeat, ("--control", "shuffle-options")):
        named = "medqa" if "--control" in more else "medqa,ward_vqa"
        code, _, err = run(*asked, "--tasks", named, *changed, *more)
        assert code == 0, err
    made = {path.parent: path.read_text() for path in private.glob("results/*/*/run.json")}
    one, two, *_ = sorted(made, key=lambda path: ("control" in made[path], "0.5" in made[path]))
    checked = ("judge-check", "--judge", f"openai:{judge}", "--judge-base-url", jury.url)
    run(*checked, "--set", f"judge.question.prompts=[{prompts}/question_1.jinja]", "--out", shared)
    share(run, one, two, private=private, shared=shared)

    assert len({path for path in made if "control" in made[path]}) == 1
    assert [*shared.rglob("repeats.json")]
    assert [*shared.rglob("scorecard.json")]
    assert not traces(shared)


def test_nor_does_one_of_a_run_that_an_earlier_version_kept_under_its_path(
    run: Run, tmp_path: Path
) -> None:
    private, shared = tmp_path / PRIVATE, tmp_path / "shared"
    shared.mkdir()
    model = "/data/private-7f3a/weights/my-model"
    (source,) = (V0_1 / "runs" / "rules").glob("*/*/run.json")
    old = private / "results" / slug(model) / source.parent.name
    shutil.copytree(source.parent, old)
    for file in (old / "run.json", *old.rglob("scores.json")):
        kept = json.loads(file.read_text())
        file.write_text(
            json.dumps(kept | {"model": model, **({"run": str(old)} if "run" in kept else {})})
        )
    run("score", old)

    share(run, old, old, private=private, shared=shared)

    assert PRIVATE in old.parent.name
    assert not traces(shared)
