"""Nothing that people share tells where on a machine model, data and runs lie."""

from __future__ import annotations

import base64
import io
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from scripted_servers import HUB, Run

from medix_eval.phantom.dataset import model_folder

PRIVATE = "private-7f3a"
_PACKED = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}")


def contents(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield what a file holds: itself, the members of a zip, and what a page carries packed."""
    yield name, content
    if content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield from contents(f"{name}/{member}", member.encode() + archive.read(member))
    for packed in _PACKED.findall(content.decode("latin-1")):
        data = base64.b64decode(packed[: len(packed.rstrip("=")) // 4 * 4])
        yield f"{name}, packed", data
        with suppress(zlib.error):
            yield f"{name}, unpacked", zlib.decompressobj().decompress(data)


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

    for form in ("markdown", "csv", "parquet", "latex", "bibtex", "methods", "lm-eval"):
        run("export", one, two, "--format", form, "--out", shared / f"export.{form}")
    run("report", one, two, "--data-root", private / "mirror", "--out", shared / "comparison.html")
    run("report", one, "--data-root", private / "mirror")
    policy = shared / "policy.yaml"
    policy.write_text(
        "name: ward\nfloors: [{task: medqa, at_least: 0.1}]\nallow_limited: true\n"
        "allow_synthetic: true\n"
    )
    gate = ("gate", policy, one, "--baseline", two)
    for number, command in enumerate([gate, ("compare", one, two)]):
        for form in ("", "--json"):
            said = run(*filter(None, (*command, form)))[1]
            (shared / f"said-{number}{form}.txt").write_text(said)
    run(*gate, "--page", shared / "gate.html")
    run("leaderboard", one, two, "--allow-synthetic", "--out", shared / "site")
    run("submit", one, "--out", shared / "zips", "--allow-synthetic")
    run("judge-check", "--sheet", one, "--out", shared)
    run("score", one)
    for judged in private.glob("results/*/*/judged/*"):
        shutil.copytree(judged, shared / judged.relative_to(private / "results"))
        (shared / judged.relative_to(private / "results") / "judging.json").unlink()
    files = [path for path in shared.rglob("*") if path.is_file()]
    found = {
        f"{name}: …{text[max(0, at - 60) : at + 30]!r}…"
        for path in files
        for name, text in contents(str(path.relative_to(shared)), path.read_bytes())
        for at in [text.find(PRIVATE.encode())]
        if at >= 0
    }

    assert len(files) > 30
    assert not found, "\n".join(sorted(found))
