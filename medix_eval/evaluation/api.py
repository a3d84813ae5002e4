"""The public Python API, of which the command line is a thin wrapper: `import medix_eval`.

Every function does what the subcommand of its name does, and keyword arguments are named like the
flags. Nothing is printed: errors are those of `medix_eval.errors`, warnings are logged, and a bar
is shown only with `progress=True`. All of it works inside a running event loop (a notebook) and in
a thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args
from unicodedata import normalize

from medix_eval.data.tasks import Catalogue, mirror_at, open_catalogue
from medix_eval.errors import ConfigError, UnknownName
from medix_eval.models.resolve import ModelFlags, kind_of
from medix_eval.results.store import JudgedRun, JudgedSample, find_judging, read_runs
from medix_eval.storage.digests import shown_name

if TYPE_CHECKING:
    from typing import Unpack

    import pandas as pd

    from medix_eval.evaluation.evaluation import Settings
    from medix_eval.evaluation.panel import JudgeChoice
    from medix_eval.evaluation.rejudging import Rejudged
    from medix_eval.evaluation.repeats import Repeats
    from medix_eval.results.comparison import Comparison
    from medix_eval.results.scores import Scores

AnyPath = str | Path
Engine = Literal["vllm", "hf"]
Size = Literal["none", "thumbnail", "original"]


class Serving(TypedDict, total=False):
    """How a model and its judges are reached; each `judge_` option is once for all, or once each.

    Times are in seconds. A flag that may be repeated takes one value or a sequence.
    """

    backend: Engine | None
    base_url: str | Sequence[str] | None
    api_key_env: str | None
    allow_model_alias: str | Sequence[str] | None
    concurrency: int | None
    request_timeout: float
    patience: float
    gpus: str | None
    vllm_args: str | None
    server_timeout: float
    keep_server: bool
    judge_backend: Engine | None
    judge_base_url: str | Sequence[str] | None
    judge_api_key_env: str | Sequence[str] | None
    judge_allow_model_alias: str | Sequence[str] | None
    judge_concurrency: int | Sequence[int] | None
    judge_request_timeout: float
    judge_patience: float
    judge_gpus: str | Sequence[str] | None
    judge_vllm_args: str | Sequence[str] | None
    judge_server_timeout: float


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One judging of one run, as its folder holds it."""

    judged: JudgedRun

    @property
    def path(self) -> Path:
        """Where its scores are: the folder of the judging, or of the one selection that it is."""
        return self.judged.place

    @property
    def scores(self) -> Scores:
        """Scores in [0, 1] by task and by group, as in `scores.json`."""
        return self.judged.scores

    @property
    def repeats(self) -> Repeats | None:
        """The result of `repeat=K`, on the first of its runs; None on the others."""
        from medix_eval.evaluation.repeats import Repeats  # noqa: PLC0415

        if not (file := self.path / "repeats.json").is_file():
            return None
        found, out = Repeats.model_validate_json(file.read_bytes()), self.judged.folder.parents[1]
        return found.model_copy(update={"runs": tuple(str(out / one) for one in found.runs)})

    def samples(self) -> Iterator[JudgedSample]:
        """Yield every sample with its completion and its verdict; one at a time is in memory."""
        return self.judged.samples()

    def to_pandas(self) -> pd.DataFrame:
        """Return one row a sample, with the columns of `export --format parquet`.

        Texts of restricted (`dua`) tasks are None. Needs memory for the texts of all samples.
        """
        from medix_eval.report.exports import samples_frame  # noqa: PLC0415

        return samples_frame([self.judged])

    def report(
        self,
        *,
        images: Size = "none",
        data_root: AnyPath | None = None,
        include_path: AnyPath | Sequence[AnyPath] | None = None,
    ) -> Path:
        """Write `report.html` and return its path; images are read again from their datasets."""
        from medix_eval.report.page import write_run_page  # noqa: PLC0415
        from medix_eval.report.pictures import read_pictures  # noqa: PLC0415

        if images not in get_args(Size):
            raise UnknownName("size of images", str(images), get_args(Size))
        pictures = read_pictures(
            self.judged, tasks(include_path), data_root=mirror_at(data_root), size=images
        )
        return write_run_page(self.judged, images=pictures)


def evaluate(
    *,
    model: str,
    name: str | None = None,
    tasks: str | Sequence[str],
    protocol: str = "medix",
    overrides: Sequence[str] = (),
    judge: str | Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    control: str | None = None,
    repeat: int | None = None,
    out: AnyPath = "results",
    data_root: AnyPath | None = None,
    include_path: AnyPath | Sequence[AnyPath] | None = None,
    local_host: str | Sequence[str] | None = None,
    allow_egress: str | None = None,
    accept_data_change: bool = False,
    allow_fallback: bool = False,
    allow_text_only: bool = False,
    allow_partial: bool = False,
    same_model: bool = False,
    no_cache: bool = False,
    progress: bool = False,
    **serving: Unpack[Serving],
) -> Run:
    """Answer and judge the samples of tasks, or resume an earlier run, and return the run.

    `name` is how the model is shown everywhere, in place of its own name; `same_model` goes on with
    a run whose server had another address. `tasks` are names of tasks and groups, `overrides`
    changes to the protocol such as `generation.max_tokens=8192`, `limit` the most samples per task.
    Failed samples are counted in `scores.num_failures`; the same call retries them.

    Raises `ConfigError` for an option or a file, `DatasetError` for data that is not what its task
    says, `ServerError` for a model or a judge that cannot be used; finished work is kept.
    """
    settings, catalogue = _settings(**locals())
    from medix_eval.evaluation.evaluation import evaluate as once  # noqa: PLC0415
    from medix_eval.evaluation.evaluation import evaluate_beside_plain  # noqa: PLC0415

    if repeat is not None:
        from medix_eval.evaluation.repeats import evaluate_repeatedly  # noqa: PLC0415

        times = _number("--repeat", repeat) or 0
        return load_run(evaluate_repeatedly(settings, catalogue, times=times).runs[0])
    return load_run((evaluate_beside_plain if control else once)(settings, catalogue).run)


def plan(*, as_json: bool = False, **options: Any) -> str:
    """Say what `evaluate` would send where with the same options: all checks, nothing sent.

    Raises what `evaluate` would raise before its first request.
    """
    from medix_eval.evaluation.controls import refuse_unfit  # noqa: PLC0415
    from medix_eval.evaluation.dry_run import estimate  # noqa: PLC0415
    from medix_eval.evaluation.repeats import refuse_equal  # noqa: PLC0415

    try:
        bound = inspect.signature(evaluate).bind(**options)
    except TypeError as error:
        raise ConfigError(f"invalid options: {error}") from error
    bound.apply_defaults()
    settings, catalogue = _settings(**bound.arguments)
    if settings.control:
        named = {name: catalogue.tasks[name].settings for name in settings.tasks}
        refuse_unfit(settings.control, named)
    repetitions = _number("--repeat", bound.arguments["repeat"])
    if repetitions is not None:
        refuse_equal(settings, catalogue, times=repetitions)
    return estimate(settings, catalogue, repetitions=repetitions or 1, as_json=as_json)


def judge(run: Run | AnyPath, **options: Any) -> Run:
    """Judge the saved completions of a run again and return that judging; see `judge_all`."""
    (done,) = judge_all([run], **options)
    return load_run(done.after)


def judge_all(
    runs: Iterable[Run | AnyPath],
    *,
    protocol: str = "medix",
    overrides: Sequence[str] = (),
    judge: str | Sequence[str] | None = None,
    include_path: AnyPath | Sequence[AnyPath] | None = None,
    local_host: str | Sequence[str] | None = None,
    allow_egress: str | None = None,
    allow_partial: bool = False,
    no_cache: bool = False,
    progress: bool = False,
    **serving: Unpack[Serving],
) -> list[Rejudged]:
    """Judge saved completions again with judges that stay open between runs.

    No model is asked. Returns the judging before and the judging after, of each run in order.
    Raises `ConfigError` for an option or a damaged run, `NoJudge` for a judge that cannot be used.
    """
    from medix_eval.evaluation.rejudging import Rejudging, judge_again  # noqa: PLC0415
    from medix_eval.judging.protocol import load_protocol  # noqa: PLC0415

    named = tuple(_path(run) for run in runs)
    if not named:
        raise ConfigError("no run is named", hint="name one or more run folders")
    asked = Rejudging(
        runs=named,
        protocol=load_protocol(str(protocol), overrides=_listed(overrides)),
        judges=judge_choices(judge, serving),
        use_cache=not no_cache,
        allow_partial=allow_partial,
        local_hosts=_listed(local_host),
        egress_reason=allow_egress,
        progress=progress,
    )
    return judge_again(asked, tasks(include_path))


def score(
    run: Run | AnyPath,
    *,
    judging: str | None = None,
    labels: AnyPath | None = None,
    prices: AnyPath | None = None,
    allow_partial: bool = False,
    include_path: AnyPath | Sequence[AnyPath] | None = None,
) -> Run:
    """Score a run again from its verdicts and return it; nothing is sent anywhere.

    `labels` is a file of people's labels of some of its answers, `prices` a YAML of prices. Raises
    `ConfigError` for a file that cannot be used and for a run without verdicts.
    """
    from medix_eval.evaluation.evaluation import write_scores  # noqa: PLC0415
    from medix_eval.results.labels import read_labels  # noqa: PLC0415
    from medix_eval.results.prices import read_prices  # noqa: PLC0415

    folder, place = find_judging(_path(run), judging=judging)
    scores = write_scores(
        folder,
        place,
        tasks(include_path),
        allow_partial=allow_partial,
        labels=read_labels(Path(labels)) if labels else None,
        prices=read_prices(Path(prices)) if prices else None,
    )
    return load_run(scores.run)


def compare(*runs: Run | AnyPath, force: bool = False, judging: str | None = None) -> Comparison:
    """Compare runs with the first one, paired sample by sample.

    Differences and their 95 % intervals are on scores in [0, 1]. Raises `RunMismatch` where
    protocol, judge or data differ, unless `force`; `ConfigError` for fewer than two runs and for
    runs that share no sample.
    """
    from medix_eval.results.comparison import compare_runs  # noqa: PLC0415

    if len(runs) < 2:  # noqa: PLR2004 (a pair)
        raise ConfigError("one run alone cannot be compared", hint="name two or more")
    return compare_runs([run.judged for run in load_runs(*runs, judging=judging)], force=force)


def load_run(run: Run | AnyPath, *, judging: str | None = None) -> Run:
    """Read a finished run: its folder, or that of a judging or of a selection.

    Of several judgings it is the one whose digest begins with `judging`, else the newest.
    Raises `ConfigError` for a folder that is not a run, or whose files are damaged.
    """
    return load_runs(run, judging=judging)[0]


def load_runs(*runs: Run | AnyPath, judging: str | None = None) -> list[Run]:
    """Read finished runs, as `load_run` does; those that are read already are kept as they are."""
    read = iter(read_runs((Path(one) for one in runs if not isinstance(one, Run)), judging=judging))
    return [run if isinstance(run, Run) else Run(next(read).absolute()) for run in runs]


def tasks(include_path: AnyPath | Sequence[AnyPath] | None = None) -> Catalogue:
    """Return every task and group, those of your own folders among them.

    `.tasks` maps names to task files, `.groups` names to the tasks they stand for. Raises
    `ConfigError` for a task file that cannot be used.
    """
    return open_catalogue(_listed(include_path))


def judge_choices(
    names: str | Sequence[str] | None, serving: Mapping[str, Any]
) -> tuple[JudgeChoice, ...]:
    """Return the judges that are named, or one without a name: the protocol's own.

    Raises `ConfigError` for an option that is unknown, or not given once or once for each judge.
    """
    from medix_eval.evaluation.panel import JudgeChoice  # noqa: PLC0415

    known = Serving.__annotations__
    if unknown := [name for name in serving if name not in known]:
        raise UnknownName("option", unknown[0], [*inspect.signature(evaluate).parameters, *known])
    judges: list[str | None] = [*map(str, _listed(names))] or [None]
    serving = {**serving, "judge_base_url": _listed(serving.get("judge_base_url"))}
    urls: list[Any] = [serving["judge_base_url"]]
    if len(judges) > 1:  # else all addresses are of the one judge, and share its load
        shared = _shared_out("judge_base_url", serving, judges, takes=("openai",))
        urls = [() if url is None else (url,) for url in shared]
    local, keyed = ("local",), ("openai", "provider")
    given: dict[str, Sequence[Any]] = {
        "base_urls": urls,
        "key_env": _shared_out("judge_api_key_env", serving, judges, takes=keyed),
        "aliases": [_listed(serving.get("judge_allow_model_alias"))] * len(judges),
        "backend": _shared_out("judge_backend", serving, judges, takes=local),
        "gpus": _shared_out("judge_gpus", serving, judges, takes=local),
        "vllm_args": _shared_out("judge_vllm_args", serving, judges, takes=local),
        "concurrency": [
            positive("--judge-concurrency", number)
            for number in _shared_out("judge_concurrency", serving, judges)
        ],
    }
    return tuple(
        JudgeChoice(
            name=name,
            flags=_flags("judge", serving, {key: values[at] for key, values in given.items()}),
        )
        for at, name in enumerate(judges)
    )


def positive(flag: str, number: int | None) -> int | None:
    """Return a count, or raise `ConfigError` for one below 1."""
    number = _number(flag, number)
    if number is not None and number < 1:
        raise ConfigError(f"{flag} {number} is too small", hint="use 1 or more")
    return number


_LONGEST_NAME = 100
"""Characters of the name of a model."""


def _checked_name(name: Any) -> str:
    """Return a name in the one way to write it, or raise `ConfigError`."""
    text = normalize("NFC", name) if isinstance(name, str) else ""
    is_path = "://" in text or text.startswith(("~/", "./", "../"))
    is_plain = text == shown_name(text.strip()) and text.isprintable() and not is_path
    if not is_plain or not 0 < len(text) <= _LONGEST_NAME:
        raise ConfigError(
            f"--name {str(name)[:60]!r} is not a name",
            hint=f"1 to {_LONGEST_NAME} printable characters: no path, no spaces around them",
        )
    return text


def _settings(
    *,
    model: str,
    tasks: str | Sequence[str],
    protocol: str,
    overrides: Sequence[str],
    judge: str | Sequence[str] | None,
    control: str | None,
    out: AnyPath,
    data_root: AnyPath | None,
    include_path: AnyPath | Sequence[AnyPath] | None,
    local_host: str | Sequence[str] | None,
    allow_egress: str | None,
    no_cache: bool,
    limit: int | None,
    seed: int,
    serving: Mapping[str, Any] | None = None,
    **kept: Any,
) -> tuple[Settings, Catalogue]:
    """Check the options of an evaluation; those that need no check are kept as they are."""
    from medix_eval.evaluation.controls import Control  # noqa: PLC0415
    from medix_eval.evaluation.evaluation import Settings  # noqa: PLC0415
    from medix_eval.judging.protocol import load_protocol  # noqa: PLC0415

    serving = serving or {}
    if not model:
        raise ConfigError("--model is missing", hint="for example --model phantom")
    if (name := kept["name"]) is not None:
        kept["name"] = _checked_name(name)
    limit = _number("--limit", limit)
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit} is too small", hint="1 or more; omit it to run all")
    judges = judge_choices(judge, serving)
    catalogue = open_catalogue(_listed(include_path))
    fixed = load_protocol(str(protocol), overrides=_listed(overrides))
    flags = {
        "base_urls": _listed(serving.get("base_url")),
        "key_env": serving.get("api_key_env"),
        "aliases": _listed(serving.get("allow_model_alias")),
        "concurrency": positive("--concurrency", serving.get("concurrency")),
        **{name: serving.get(name) for name in ("backend", "gpus", "vllm_args")},
    }
    del kept["repeat"]
    return Settings(
        model=str(model),
        model_flags=_flags("model", serving, flags),
        tasks=catalogue.select(_listed(tasks), twins=fixed.twins),
        protocol=fixed,
        judges=judges,
        limit=limit,
        seed=_number("--seed", seed) or 0,
        out=Path(out),
        data_root=mirror_at(data_root),
        use_cache=not no_cache,
        control=Control.named(control) if control else None,
        local_hosts=_listed(local_host),
        egress_reason=allow_egress,
        **kept,
    ), catalogue


def _flags(
    role: Literal["model", "judge"], serving: Mapping[str, Any], given: Mapping[str, Any]
) -> ModelFlags:
    flags = ModelFlags(role=role, **{name: one for name, one in given.items() if one is not None})
    if flags.backend is not None and flags.backend not in get_args(Engine):
        raise UnknownName("backend", str(flags.backend), get_args(Engine))
    seconds = {
        f"{name}_s": serving.get(flags.prefix[2:].replace("-", "_") + name)
        for name in ("request_timeout", "patience", "server_timeout")
    }
    changed = {}
    for name, value in seconds.items():
        flag = f"{flags.prefix}{name.removesuffix('_s').replace('_', '-')}"
        if value is None:
            continue
        changed[name] = _number(flag, value, whole=False)
        if not changed[name] > 0:
            raise ConfigError(f"{flag} {value} must be positive", hint="seconds, such as 600")
    return replace(flags, keep_server=bool(serving.get("keep_server")), **changed)


def _shared_out(
    name: str,
    serving: Mapping[str, Any],
    judges: Sequence[str | None],
    *,
    takes: Sequence[str] = ("openai", "provider", "plug-in", "replay", "local"),
) -> list[Any]:
    """Give each judge its value: the only one, or the one in its place among those that take it."""
    values = _listed(serving.get(name))
    if not values:
        return [None] * len(judges)
    takers = [number for number, one in enumerate(judges) if one is None or kind_of(one) in takes]
    # Where nobody takes the flag everybody gets it, and says why that cannot be.
    takers = takers or [*range(len(judges))]
    if len(values) not in {1, len(takers)}:
        raise ConfigError(
            f"--{name.replace('_', '-')} is given {len(values)} times; judges: {len(takers)}",
            hint="give it once for all, or once for each, in the order of --judge",
        )
    found: list[Any] = [None] * len(judges)
    for place, number in enumerate(takers):
        found[number] = values[0] if len(values) == 1 else values[place]
    return found


def _listed(value: Any) -> tuple[Any, ...]:
    """Return one value, several or none as a tuple."""
    if value is None:
        return ()
    if isinstance(value, str | Path) or not isinstance(value, Iterable):
        return (value,)
    return tuple(value)


def _number(flag: str, value: Any, *, whole: bool = True) -> Any:
    """Return a number of Python's own, or raise `ConfigError`; None stays None."""
    try:
        return value if value is None else index(value) if whole else float(value)
    except (TypeError, ValueError) as error:
        what = "a whole number" if whole else "a number"
        raise ConfigError(f"{flag} {value!r} is not {what}") from error


def _path(run: Run | AnyPath) -> Path:
    return run.path if isinstance(run, Run) else Path(run)
