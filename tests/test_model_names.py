"""What a model is called, which runs are of one model, and paths in every form."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from scripted_servers import HUB, Run, Serve, candidate

import medix_eval.testing
from medix_eval.errors import ConfigError
from medix_eval.phantom.dataset import model_folder

RULES = ("--tasks", "medqa", "--limit", "3", "--protocol", "rules", "--data-root", HUB)


PHANTOM = ("--model", "phantom", "--tasks", "medqa")
LONG = "x" * 300


def manifests(out: Path) -> list[dict[str, Any]]:
    files = sorted(out.glob("*/*/run.json"), key=lambda file: file.stat().st_mtime_ns)
    return [json.loads(file.read_text()) for file in files]


def answers_b(_: dict[str, Any]) -> str:
    return "B"


def test_a_name_is_shown_wherever_the_model_is(run: Run, serve: Serve, tmp_path: Path) -> None:
    name = "Ward model 2 (böse & gut)"
    server = serve(answers_b)
    out = ("--out", tmp_path)
    _, table, _ = run(*candidate(server), "--name", name, *RULES, *out)
    run(*candidate(server), *RULES, *out)

    named, plain = sorted(manifests(tmp_path), key=lambda one: one["model"])
    one, two = (next(tmp_path.glob(f"*/{m['generation_digest'][:8]}")) for m in (named, plain))
    assert (named["model"], plain["model"]) == (name, "openai:scripted")
    assert named["generation"]["model"] == plain["generation"]["model"] | {"name": name}
    assert one.parent.name == "Ward-model-2-b-se-gut"
    run("leaderboard", one, two, "--allow-synthetic", "--out", tmp_path / "site")
    floors = "floors: [{task: medqa, at_least: 0.1}]"
    (policy := tmp_path / "p.yaml").write_text(
        f"{{name: ward, {floors}, allow_limited: true, allow_synthetic: true}}"
    )
    run("gate", policy, one, "--page", tmp_path / "gate.html")
    assert f"SYNTHETIC DATA · {name} · protocol rules" in table
    for command in (["score", one], ["compare", one, two], ["export", one], ["gate", policy, one]):
        code, said, err = run(*command)
        assert name in said, (command, code, err)
    for form in ("csv", "methods", "markdown"):
        assert name in run("export", one, "--format", form)[1]
    assert r"Ward model 2 (böse \& gut)" in run("export", one, "--format", "latex")[1]
    pages = [*tmp_path.glob("site/*.html"), tmp_path / "gate.html", *one.glob("judged/*/report.*")]
    assert len(pages) > 3
    for page in pages:
        if page.name in {"index.html", "compare.html", "gate.html", "report.html", "report.md"}:
            text = page.read_text()
            assert name in text or name.replace("&", "&amp;") in text, page.name


@pytest.mark.parametrize(
    "name",
    ["", " ", " a", "a\n", "a\tb", "a\0", "x" * 101, "\u202eabc", "/data/x", "C:\\data\\x"],
)
def test_a_name_that_is_none_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    code, _, err = run("--model", "phantom", "--name", name, *RULES, "--out", tmp_path)

    assert code == 2
    assert "is not a name" in err.splitlines()[0]


@pytest.mark.parametrize(
    "name",
    ["x" * 256, "é" * 128, "a/" + "x" * 5000, "a\0b", "a\nb", "\ud800", "/x" * 2048],
    ids=range(7),
)
@pytest.mark.parametrize("prefix", ["", "openai:", "replay:"])
def test_a_models_name_that_is_none_is_refused(run: Run, prefix: str, name: str) -> None:
    code, _, err = run("--model", prefix + name, *RULES)

    assert code == 2
    first, *_ = err.splitlines()
    assert "is not a model" in first
    assert len(first) < 200


def test_another_address_goes_on_only_if_somebody_says_that_it_is_the_same_model(
    run: Run, serve: Serve, tmp_path: Path
) -> None:
    first, second = serve(answers_b), serve(answers_b)
    run(*candidate(first), *RULES, "--out", tmp_path)

    run(*candidate(second), "--same-model", *RULES, "--out", tmp_path)

    assert (len(first.requests), len(second.requests)) == (3, 0)
    (made,) = manifests(tmp_path)
    assert made["limits"]["model"]["base_urls"] == [second.url]

    run(*candidate(second), *RULES, "--out", tmp_path)

    assert len(second.requests) == 3
    assert len(manifests(tmp_path)) == 2
    hosts = [server.url.removeprefix("http://").removesuffix("/v1") for server in (first, second)]
    runs = [file.parent for file in sorted(tmp_path.glob("*/*/run.json"))]
    for command in (["compare", *runs], ["export", *runs]):
        _, said, _ = run(*command)
        assert all(f"openai:scripted ({host})" in said for host in hosts)
    run("leaderboard", *runs, "--allow-synthetic", "--out", tmp_path / "site")
    index = (tmp_path / "site/index.html").read_text()
    assert all(f"openai:scripted ({host})" in index for host in hosts)


def test_vouching_never_leaves_a_run_of_ones_own_nor_chooses_among_several(
    run: Run, serve: Serve, tmp_path: Path
) -> None:
    servers = [serve(answers_b) for _ in range(3)]
    for server in servers[:2]:
        run(*candidate(server), *RULES, "--out", tmp_path)

    code, _, _ = run(
        *candidate(servers[0]), "--same-model", *RULES, "--limit", "5", "--out", tmp_path
    )
    assert code == 0
    assert [len(server.requests) for server in servers] == [5, 3, 0]
    asked = {
        one["generation"]["model"]["host"]: len(one["tasks"]["medqa"]["rows"])
        for one in manifests(tmp_path)
    }
    assert [asked[server.url.split("/")[2]] for server in servers[:2]] == [5, 3]

    code, _, err = run(*candidate(servers[2]), "--same-model", *RULES, "--out", tmp_path)

    assert code == 2
    assert "--same-model: openai:scripted has runs at 127.0.0.1:" in err
    assert servers[2].requests == []


def test_a_server_that_has_another_model_under_the_name_is_refused(
    run: Run, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(answers_b)
    roots = {"now": "/secret/one/step-100"}
    listed = medix_eval.testing._listed  # noqa: SLF001 (the list of models)
    monkeypatch.setattr(
        medix_eval.testing, "_listed", lambda model: listed(model) | {"root": roots["now"]}
    )
    run(*candidate(server), *RULES, "--out", tmp_path)
    code, _, _ = run(*candidate(server), *RULES, "--tasks", "pubmedqa", "--out", tmp_path)
    assert code == 0
    roots["now"] = "/secret/two/step-100"
    more = ("--tasks", "mmlu_anatomy", "--out", tmp_path)
    code, _, err = run(*candidate(server), *RULES, *more)

    (made,) = manifests(tmp_path)
    assert re.fullmatch(r"step-100 \([0-9a-f]{8}\)", made["served"]["root"])
    assert "secret" not in json.dumps(made)
    assert code == 2
    assert "the server has another model now: root: " in err
    assert "--name" in err
    assert run(*candidate(server), *RULES, *more, "--same-model")[0] == 0
    roots["now"] = "/secret/two/step-200"
    more = ("--tasks", "mmlu_anatomy,mmlu_medical_genetics", "--out", tmp_path)
    assert run(*candidate(server), *RULES, *more, "--same-model")[0] == 2


def test_two_servers_of_one_name_with_two_models_are_refused(
    run: Run, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, roots = [serve(answers_b), serve(answers_b)], iter(["a", "b"])
    listed = medix_eval.testing._listed  # noqa: SLF001 (the list of models)
    monkeypatch.setattr(
        medix_eval.testing, "_listed", lambda model: listed(model) | {"root": next(roots)}
    )
    urls = [flag for server in servers for flag in ("--base-url", server.url)]

    code, _, err = run("--model", "openai:scripted", *urls, *RULES, "--out", tmp_path)

    assert code == 2
    assert "two models share the name openai:scripted" in err
    assert not any(server.requests for server in servers)


@pytest.mark.slow
def test_a_folder_is_one_model_in_whatever_form_it_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "some" / "weights"
    shutil.copytree(model_folder(), folder)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    out = ("--out", tmp_path / "out")
    text = ("--tasks", "medqa", "--limit", "1", "--protocol", "rules", "--backend", "hf")
    common = (*text, "--data-root", HUB, "--set", "generation.max_tokens=4", *out)
    run("--model", folder, *common)
    (made,) = (tmp_path / "out").glob("*/*/run.json")
    assert made.parent.parent.name == "weights"
    before = (made.parent / "completions.jsonl").read_bytes()

    # As an earlier version kept it: under the name of its whole path.
    old = tmp_path / "out" / "tmp__some__weights"
    made.parent.parent.rename(old)
    manifest = old / made.parent.name / "run.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"model": str(folder)}))
    for form in ("./some/weights", "some/weights/", "some/../some/weights", "link", f"{folder}/"):
        assert run("--model", form, *common)[0] in {0, 1}

    assert [*(tmp_path / "out").glob("*/*/run.json")] == [manifest]
    assert (manifest.parent / "completions.jsonl").read_bytes() == before
    assert json.loads(manifest.read_text())["model"] == "weights"


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "[bold]", "a|b", "médecin 医"])
def test_a_folder_of_any_name_can_be_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shutil.copytree(model_folder(), tmp_path / name)
    monkeypatch.chdir(tmp_path / name)
    text = ("--tasks", "medqa", "--limit", "1", "--protocol", "rules", "--backend", "hf")
    common = (*text, "--data-root", HUB, "--set", "generation.max_tokens=4")

    code, said, err = run("--model", ".", *common, "--out", tmp_path / "out")

    (made,) = manifests(tmp_path / "out")
    shown = re.sub(r"[\n\x1b]", "?", name)
    assert code in {0, 1}, err
    assert made["model"] == shown
    assert shown in said


TASKS = {
    "json": "medqa",
    "parquet": "rad_vqa",
    "csv and zip": "pmc_vqa",
    "json and zip": "slake_vqa",
    "configs": "mmlu_anatomy",
}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("form", ["link", "a/../hub", "relative", "link to ORG"])
def test_a_data_root_is_the_same_by_whatever_path(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, form: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "hub").symlink_to(HUB)
    (tmp_path / "by-org").mkdir()
    for org in HUB.iterdir():
        (tmp_path / "by-org" / org.name).symlink_to(org)
    monkeypatch.chdir(tmp_path)
    roots: dict[str, Path | str] = {
        "link": tmp_path / "hub",
        "relative": Path("hub"),
        "link to ORG": "by-org",
    }
    root = Path(roots.get(form, tmp_path / form))
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"task": task, "sample_id": "none", "completion": "A"}) + "\n")
    model = ("--model", f"replay:{answers}", "--protocol", "rules", "--tasks", task)

    shown = run("show", task, "--data-root", root)
    checked = run("data", "check", "--tasks", task, "--data-root", root)
    (tmp_path / "real-out").mkdir()
    (tmp_path / "out").symlink_to("real-out")
    for out in ("out", "a/../real-out", tmp_path / "out"):
        code, _, err = run(*model, "--limit", "1", "--data-root", root, "--out", out)
        assert code == 1, err
    verified = run("data", "verify", *Path("out").glob("*/*"), "--data-root", root)

    assert shown[0] == checked[0] == verified[0] == 0
    assert shown[1] == run("show", task, "--data-root", HUB)[1]
    files = [json.loads(one.read_text()) for one in (tmp_path / "out").glob("*/*/run.json")]
    assert len(files) == 1
    assert str(root.resolve()) not in json.dumps(files)


@pytest.mark.parametrize(
    "command",
    [
        (*PHANTOM, "--data-root", LONG),
        (*PHANTOM, "--include-path", LONG),
        (*PHANTOM, "--out", LONG, "--limit", "1", "--protocol", "rules", "--data-root", str(HUB)),
        (*PHANTOM, "--protocol", f"{LONG}.yaml"),
        ("score", LONG),
        ("compare", LONG, "loop"),
        ("data", "verify", "loop"),
        ("export", "loop/judged/a"),
        ("leaderboard", "loop", "--out", "site"),
    ],
    ids=range(9),
)
def test_a_path_that_cannot_be_is_refused_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")

    code, _, err = run(*command)

    assert code == 2, err
    first, *more = err.splitlines()
    assert first.startswith("error: ")
    assert all(line.startswith("hint: ") for line in more)


def test_a_run_is_found_through_links_and_after_a_change_of_folder(
    run: Run, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "hub").symlink_to(HUB)
    monkeypatch.chdir(tmp_path / "here")
    asked: Any = {"tasks": "medqa", "limit": 1, "protocol": "rules", "data_root": "hub"}
    asked |= {"model": "openai:scripted", "base_url": serve(answers_b).url, "out": "out"}
    found = medix_eval.evaluate(**asked)
    monkeypatch.chdir(tmp_path)
    judged = found.path
    (tmp_path / "judged").symlink_to(judged)
    (tmp_path / "made").symlink_to(judged.parents[1])
    forms = [Path("judged"), Path("made"), Path("made", "judged", judged.name), judged]
    forms += [judged / ".." / judged.name, judged.parent / ".." / "judged" / judged.name]

    assert len([*found.samples()]) == 1
    assert found.report().is_file()
    assert medix_eval.score(found).scores == medix_eval.load_run(judged).scores
    for form in forms:
        code, said, _ = run("score", form, "--json")
        assert (code, json.loads(said)["generation_digest"]) == (0, found.scores.generation_digest)


def test_a_name_is_one_in_whatever_way_its_letters_are_written(
    run: Run, serve: Serve, tmp_path: Path
) -> None:
    server = serve(answers_b)
    for name in ("caf\u00e9", "cafe\u0301"):
        assert run(*candidate(server), "--name", name, *RULES, "--out", tmp_path)[0] == 0

    assert [made["model"] for made in manifests(tmp_path)] == ["caf\u00e9"]
    for other in (5, b"x", ["a"], Path("a")):
        with pytest.raises(ConfigError, match="is not a name"):
            medix_eval.evaluate(model="phantom", tasks="medqa", name=other)  # type: ignore[arg-type]


def test_two_models_of_one_name_do_not_overwrite_each_others_files(
    run: Run, serve: Serve, tmp_path: Path
) -> None:
    for server in (serve(answers_b), serve(answers_b)):
        run(*candidate(server), *RULES, "--out", tmp_path / "out")
    runs = [file.parent for file in (tmp_path / "out").glob("*/*/run.json")]

    run("export", *runs, "--format", "lm-eval", "--out", tmp_path / "lm")
    for one in runs:
        run("submit", one, "--allow-synthetic", "--out", tmp_path / "zips")

    assert len({file.parent for file in tmp_path.glob("lm/*/*/results_*.json")}) == 2
    assert len([*tmp_path.glob("zips/*.zip")]) == 2


def test_a_damaged_run_of_a_model_is_in_nobodys_way(run: Run, serve: Serve, tmp_path: Path) -> None:
    server = serve(answers_b)
    run(*candidate(server), *RULES, "--out", tmp_path)
    (made,) = tmp_path.glob("*/*/run.json")
    made.write_text("{")

    changed = ("--set", "generation.max_tokens=8")
    code, _, err = run(*candidate(server), *RULES, *changed, "--same-model", "--out", tmp_path)

    assert code == 0, err
    assert len([*tmp_path.glob("*/*/run.json")]) == 2
