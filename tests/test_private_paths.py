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


def test_no_file_that_is_shared_names_a_private_folder(
    run: Run, tmp_path: Path, serve: object, monkeypatch: object
) -> None:
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

    said = []
    for form in ("markdown", "csv", "parquet", "latex", "bibtex", "methods", "lm-eval"):
        run("export", one, two, "--format", form, "--out", shared / f"export.{form}")
    run("report", one, two, "--data-root", private / "mirror", "--out", shared / "comparison.html")
    run("report", one, "--data-root", private / "mirror")
    policy = shared / "policy.yaml"
    policy.write_text("rules: [{name: floor, metric: score, of: {task: medqa}, min: 0.1}]\n")
    said += run("gate", policy, one, "--baseline", two, "--page", shared / "gate.html")
    said += run("compare", one, two)
    said += run("compare", one, two, "--json")
    said += run("leaderboard", one, two, "--allow-synthetic", "--out", shared / "site")
    said += run("submit", one, "--out", shared / "zips", "--allow-synthetic")
    said += run("judge-check", "--sheet", one, "--out", shared)
    said += run("score", one)
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
