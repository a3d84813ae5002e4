"""Judge saved completions again: other judges or another protocol, nothing generated.

A run folder may be anywhere, under any name: `run.json` says which samples belong to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import ConfigError
from medix_eval.evaluation.evaluation import refuse_foreign_hosts, write_scores
from medix_eval.evaluation.panel import (
    Appointed,
    JudgeChoice,
    JudgingStage,
    appoint,
    judging_manifest,
    open_judges,
    resolve_judges,
)
from medix_eval.evaluation.progress import Progress, shown_progress
from medix_eval.judging.cache import VerdictCache
from medix_eval.judging.prompts import check_prompts
from medix_eval.judging.protocol import Protocol
from medix_eval.models.chat import ChatModel
from medix_eval.models.requests import RetryPolicy, run_to_end
from medix_eval.models.resolve import give_gpus
from medix_eval.results.store import (
    JudgingManifest,
    RunManifest,
    find_run,
    load_run_manifest,
    open_judging,
    open_run,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudging:
    """What the user asked for."""

    runs: tuple[Path, ...]
    protocol: Protocol
    judges: tuple[JudgeChoice, ...]
    use_cache: bool
    allow_partial: bool
    local_hosts: tuple[str, ...] = ()
    egress_reason: str | None = None
    progress: bool = False

    @property
    def policy(self) -> RetryPolicy:
        """How long to go on asking a judge."""
        return RetryPolicy(silence_s=self.judges[0].flags.request_timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejudged:
    """One run, with the judging it had and the one it has now."""

    folder: Path
    before: Path | None
    """None where this is the first judging, or the same one again."""
    after: Path


def judge_again(asked: Rejudging, catalogue: Catalogue) -> list[Rejudged]:
    """Judge the completions of every run; verdicts that stand are kept, as in an evaluation."""
    check_prompts(asked.protocol)
    named = [find_run(path) for path in asked.runs]
    folders = [folder for folder, _ in named]
    if twice := next((one for one in folders if folders.count(one) > 1), None):
        raise ConfigError(f"{twice} is named twice", hint="name each run once, at either level")
    out = folders[0].parent.parent
    judges = appoint(give_gpus(resolve_judges(asked.protocol, asked.judges, out=out)))
    manifests = [load_run_manifest(folder) for folder, _ in named]
    refuse_foreign_hosts(
        tasks={
            name
            for manifest in manifests
            for name, task in manifest.tasks.items()
            if task.data_class == "dua"
        },
        hosts=[host for judge in judges for host in judge.source.hosts],
        vouched=asked.local_hosts,
        reason=asked.egress_reason,
    )
    with shown_progress(wanted=asked.progress) as progress:
        session = _Session(asked, judges, progress)
        judgings = run_to_end(session.judge_all(folders, manifests))
    done = []
    for (folder, before), after in zip(named, judgings, strict=True):
        write_scores(folder, after, catalogue, allow_partial=asked.allow_partial)
        other = before if before != after else _newest_but(folder, after)
        done.append(Rejudged(folder=folder, before=other, after=after))
    return done


@dataclass(slots=True)
class _Session:
    """Judges that stay open from run to run."""

    asked: Rejudging
    judges: tuple[Appointed, ...]
    progress: Progress
    models: dict[str, ChatModel] | None = None

    async def judge_all(
        self, folders: Sequence[Path], manifests: Sequence[RunManifest]
    ) -> list[Path]:
        """Judge one run after the other, and return the folders of the judgings."""
        async with AsyncExitStack() as stack:
            return [
                await self._judge(folder, manifest, stack)
                for folder, manifest in zip(folders, manifests, strict=True)
            ]

    async def _judge(self, folder: Path, manifest: RunManifest, stack: AsyncExitStack) -> Path:
        with ExitStack() as files:
            run = files.enter_context(open_run(folder.parent, manifest, at=folder))
            judging = files.enter_context(open_judging(run, self._describe(manifest)))
            cache = None
            if self.asked.use_cache and self.judges:
                path = folder.parent.parent / ".cache" / "verdicts.sqlite"
                cache = files.enter_context(VerdictCache.at(path))
            stage = JudgingStage(
                protocol=self.asked.protocol,
                judges=self.judges,
                policy=self.asked.policy,
                run=run,
                judging=judging,
                cache=cache,
                progress=self.progress,
            )
            rows = {
                f"{name}@{task.version}": frozenset(
                    range(task.num_rows) if task.rows is None else task.rows
                )
                for name, task in manifest.tasks.items()
            }
            if wanted := stage.unjudged(rows):
                if self.models is None:  # only now: nothing is loaded to find out there is no work
                    logs = folder / "logs"
                    self.models = await open_judges(self.judges, stack=stack, logs=logs)
                stage.begin(self.models)
                await stage.score_saved(wanted)
            return judging.path

    def _describe(self, manifest: RunManifest) -> JudgingManifest:
        """Describe the judging; completions of other generation settings are named as such."""
        protocol = self.asked.protocol
        generation = {key: manifest.generation.get(key) for key in protocol.generation_settings()}
        described = judging_manifest(
            protocol, self.judges, tasks=list(manifest.tasks), generation=generation
        )
        return described.model_copy(update={"egress_reason": self.asked.egress_reason})


def _newest_but(folder: Path, judged: Path) -> Path | None:
    """Return the newest other judging of a run."""
    files = sorted(folder.glob("judged/*/scores.json"), key=lambda file: file.stat().st_mtime_ns)
    return next((file.parent for file in reversed(files) if file.parent != judged), None)
