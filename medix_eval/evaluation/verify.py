"""Whether the local data is what a run scored: the files' bytes, and every sample asked."""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha256
from pathlib import Path

from medix_eval.data.lm_task import MedixTask, open_task
from medix_eval.data.samples import BadSample, read_samples
from medix_eval.data.tasks import Catalogue
from medix_eval.errors import DatasetError
from medix_eval.records import CompletionRecord
from medix_eval.results.store import load_run_manifest, newest_completions
from medix_eval.storage.digests import differences

_NAMED = 3


def verify_run(run: Path, catalogue: Catalogue, *, data_root: Path | None) -> dict[str, list[str]]:
    """Return for each task of a run how the local data differs from what was scored.

    No manifest is trusted: every file is hashed, and every sample that was asked is read again.
    """
    manifest = load_run_manifest(run)
    asked: defaultdict[str, list[CompletionRecord]] = defaultdict(list)
    for record in newest_completions(run):
        asked[record.task.partition("@")[0]].append(
            record.model_copy(update={"prompt": "", "completion": None})
        )
    found: dict[str, list[str]] = {}
    for name, entry in manifest.tasks.items():
        if name not in catalogue.tasks:
            found[name] = ["no task file has this name; add its folder with --include-path"]
            continue
        file = catalogue.tasks[name]
        faults = differences(entry.digest, file.digest, at="task file")
        try:
            task = open_task(file, data_root=data_root, accept_change=True)
        except DatasetError as error:
            found[name] = [*faults, str(error)]
            continue
        now = {"revision": task.revision, "files": task.fingerprint(rehash=True)}
        scored = {key: entry.source.get(key) for key in now}
        faults += [f"file hashes: {line}" for line in differences(scored, now)]
        found[name] = faults + _changed_samples(task, asked[name], key=file.key)
    return found


def _changed_samples(task: MedixTask, records: list[CompletionRecord], *, key: str) -> list[str]:
    """Read the rows that were asked again, and compare ids and images."""
    by_row = {record.row: record for record in records}
    gone = [row for row in by_row if row >= len(task.rows)]
    rows = sorted(by_row.keys() - set(gone))
    changed = list(gone)
    for sample in read_samples(task, rows, key=key, done=frozenset(), taken=set()):
        images: tuple[str, ...] = ()
        if isinstance(sample, BadSample):
            now, row = sample.record.sample_id, sample.record.row
        else:
            now, row = sample.id, sample.row
            images = tuple(sha256(image).hexdigest() for image in sample.images)
        then = by_row[row]
        # Which of two equal rows is `#2` depends on the order they were asked in.
        same_id = now.partition("#")[0] == then.sample_id.partition("#")[0]
        if not same_id or images != then.image_sha256:
            changed.append(row)
    if not changed:
        return []
    named = ", ".join(map(str, changed[:_NAMED])) + (", …" if len(changed) > _NAMED else "")
    return [f"samples unlike those asked: {len(changed)} of {len(by_row)}, in rows {named}"]
