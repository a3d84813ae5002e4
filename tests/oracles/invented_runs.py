"""Finished runs for tests, made in a moment: real folders, real scoring, invented answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medix_eval.data.tasks import Catalogue
from medix_eval.results.scoring import score_run
from medix_eval.results.store import JudgingManifest, RunManifest, TaskEntry, slug
from medix_eval.storage.digests import digest

Answers = Mapping[str, Sequence[float | str | None]]
"""The score of each sample by task, or its outcome; None is one that the rules left unjudged."""
UNSCORED = {"unjudged", "judge_failed", "request_failed", "skipped"}


@dataclass(frozen=True, slots=True)
class InventedRuns:
    """Makes runs in one results folder."""

    out: Path
    catalogue: Catalogue

    def make(
        self,
        model: str,
        answers: Answers,
        *,
        protocol: str = "medix",
        judge: str | None = "Qwen/Qwen3-14B",
        revision: str = "r1",
        synthetic: bool = False,
        started: str = "2026-05-01T10:00:00+00:00",
        limit: int | None = None,
        completion: str = "<answer>B</answer>",
        weights: str = "w1",
        tokens: int = 100,
        groups: Mapping[str, tuple[str, ...]] | None = None,
        condition: Mapping[str, Any] | None = None,
        note: str | None = None,
    ) -> Path:
        """Write one finished run and return its folder."""
        generation = {
            "model": {"kind": "hub", "id": model, "commit": weights},
            "generation": {"max_tokens": 2048, "temperature": 0.0},
            **(condition or {}),
        }
        judges = [{"id": judge, "revision": "x", "digest": digest(judge)}] if judge else []
        manifest = RunManifest(
            model=model,
            generation_digest=digest([generation, started]),
            generation=generation,
            tasks={
                task: self._entry(task, len(scores), revision, synthetic=synthetic, limit=limit)
                for task, scores in answers.items()
            },
            limits={},
            versions={"medix-eval": "0.1.0"},
            hardware={},
            started=started,
        )
        judging = JudgingManifest(
            protocol={"name": protocol, "digest": digest(protocol)}
            | ({} if note is None else {"note": note}),
            judges=judges,
            judging_digest=digest([protocol, judge]),
            judging={},
            tasks=list(answers),
        )
        folder = self.out / slug(model) / manifest.generation_digest[:8]
        judged = folder / "judged" / judging.judging_digest[:8]
        judged.mkdir(parents=True)
        (folder / "run.json").write_text(manifest.model_dump_json())
        (judged / "judging.json").write_text(judging.model_dump_json())
        _write_lines(folder, judged, answers, completion=completion, tokens=tokens)
        scores = score_run(
            folder,
            judged,
            manifest=manifest,
            judging=judging,
            groups=self.catalogue.groups if groups is None else groups,
        )
        (judged / "scores.json").write_text(scores.model_dump_json())
        return folder

    def _entry(
        self, task: str, num_rows: int, revision: str, *, synthetic: bool, limit: int | None
    ) -> TaskEntry:
        known = self.catalogue.tasks.get(task)
        return TaskEntry(
            version="1",
            digest=digest(task),
            source={"path": "org/name", "revision": revision},
            synthetic=synthetic,
            num_rows=num_rows if limit is None else 10 * num_rows,
            data_class=known.settings.data_class if known else "public",
            modality=known.settings.modality if known else "text",
            kind=known.settings.kind.value if known else "multiple_choice",
            limit=limit,
            seed=0,
            cluster=known.settings.cluster if known else None,
            slices=list(known.settings.slices) if known else [],
            rows=None if limit is None else list(range(num_rows)),
        )


def _write_lines(
    folder: Path, judged: Path, answers: Answers, *, completion: str, tokens: int
) -> None:
    with (
        (folder / "completions.jsonl").open("w") as completions,
        (judged / "verdicts.jsonl").open("w") as verdicts,
    ):
        said = json.dumps(completion)
        for task, scores in answers.items():
            for row, score in enumerate(scores):
                sample = f'"task":"{task}@1","sample_id":"{row:016x}"'
                columns = f'{{"img_name":"{row // 2}","answer_type":"{"AB"[row % 2]}"}}'
                completions.write(
                    f'{{{sample},"row":{row},"kind":"multiple_choice","prompt":"Which?",'
                    f'"reference":"B","columns":{columns},"completion":{said},'
                    f'"completion_tokens":{tokens},"requests":1}}\n'
                )
                outcome = "unjudged" if score is None else "correct" if score == 1 else "wrong"
                outcome = "partial" if score not in {None, 0, 1} else outcome
                given = score
                if isinstance(score, str):
                    outcome, given = score, None if score in UNSCORED else 0.0
                verdicts.write(f'{{{sample},"outcome":"{outcome}","score":{json.dumps(given)}}}\n')
