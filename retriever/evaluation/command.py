"""`octavo eval` and `octavo compare`: what they read off the command line and what they print."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retriever import terminal as term

if TYPE_CHECKING:
    from ingest.page import Encoder
    from retriever.evaluation.datasets import QuestionSet
    from retriever.evaluation.run import Result

POOLS = (1, 2, 4)  # of a sweep
_SHOWN = 40  # failures of all data sets together
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(name="eval")
@click.argument("sources", nargs=-1, required=True, metavar="FOLDER|NAME|FILE...")
@click.option("--encoder", metavar="NAME", help="The one in the package by default.")
@click.option(
    "--mode", "modes", multiple=True, type=click.Choice(["hybrid", "visual", "text"]), help="May be repeated."
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(["layer", "ocr", "rapidocr"]),
    help="BM25 over files' text layers, or over OCR of the pictures; may be repeated.",
)
@click.option("--pixels-only", is_flag=True, help="Hide text layers from the encoder: pages as if scanned.")
@click.option("--codec", "codecs", multiple=True, metavar="NAME", help="How vectors are kept (int8); may be repeated.")
@click.option("--pool", "pools", multiple=True, type=click.IntRange(min=1), help="Tokens that become one vector (1).")
@click.option("--candidates", "stages", multiple=True, metavar="STAGE", help="The first stage (auto); may be repeated.")
@click.option("--sweep", is_flag=True, help="All codecs, pools and first stages, or those that are named.")
@click.option("--measure", "measures", multiple=True, metavar="NAME@K", help="ndcg@5 first, and others, by default.")
@click.option("--queries", type=click.IntRange(min=1), help="At most so many of a data set, drawn by a seed.")
@click.option("--language", "languages", multiple=True, metavar="NAME", help="Only queries in it; may be repeated.")
@click.option("--split", default="test", show_default=True, help="Of a data set that has several.")
@click.option("--run", "runs", multiple=True, type=_FILE, help="Score a TREC run file instead; may be repeated.")
@click.option("--report", type=_FOLDER, metavar="FOLDER", help="Write report.html, eval.json and TREC run files there.")
@click.option("--cache", type=_FOLDER, metavar="FOLDER", help="Where indexes are kept (~/.cache/octavo/eval).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def evaluate(
    sources: tuple[str, ...],
    encoder: str | None,
    modes: tuple[str, ...],
    baselines: tuple[str, ...],
    pixels_only: bool,
    codecs: tuple[str, ...],
    pools: tuple[int, ...],
    stages: tuple[str, ...],
    sweep: bool,
    measures: tuple[str, ...],
    queries: int | None,
    languages: tuple[str, ...],
    split: str,
    runs: tuple[Path, ...],
    report: Path | None,
    cache: Path | None,
    as_json: bool,
) -> int:
    """Measure how well the pages that answer are found.

    A FOLDER has pdf/ or pages/, queries.jsonl and qrels.tsv, or is a copy of a data set of the hub; a NAME is one of
    the hub (vidore/esg_reports_v2), or a task or benchmark of mteb ("ViDoRe(v2)"). A folder of documents alone is tried
    with words of its own: a smoke test. Pictures with captions, and a file of sentence1, sentence2 and score, measure
    whether an encoder's pictures and texts, and its similarities, mean what people say they mean.
    """
    from retriever.encoders import DEFAULT, load_encoder
    from retriever.evaluation import datasets, results
    from retriever.evaluation.readers import BASELINES, PixelsOnly
    from retriever.evaluation.run import baseline
    from retriever.evaluation.sources import named

    names = _measures(measures)
    systems = _systems(codecs, pools, stages, sweep)
    cache = cache or datasets.cache_folder()
    found = named(sources, split, cache)
    chosen = _chosen(found.sets, queries, languages)
    if runs:
        measured = [(some, [results.of_run(path, some, names) for path in runs]) for some in chosen]
        engine, tasks = None, []
    else:
        _check_pictures(
            chosen, ["--pixels-only"] * pixels_only + [f"--baseline {b}" for b in baselines if b != "layer"]
        )
        readers = [BASELINES[name](cache) for name in dict.fromkeys(baselines)]
        plain = load_encoder(encoder or DEFAULT)
        engine = PixelsOnly(plain, cache) if pixels_only else plain
        with term.stages(as_json) as told:
            lexical = [*modes, *baselines]
            asked = [some if some.queries else _made_up(some, engine, cache, lexical, told) for some in chosen]
            measured = [
                (
                    some,
                    [
                        *_measure(some, engine, systems, modes, names, cache, sweep, told),
                        *(baseline(some, reader, cache, names, told) for reader in readers),
                    ],
                )
                for some in asked
            ]
            tasks = [row for task in [*found.pairs, *found.tasks] for row in _measure_task(task, plain, cache, told)]
    done = [result for _, some in measured for result in some]
    document = results.document(done, names, ["octavo", *sys.argv[1:]])
    document |= {"encoder": engine.fingerprint if engine else {}, "tasks": tasks, "skipped": found.skipped}
    document |= {"sources": list(sources)}
    if report is not None:
        _write(report, document, measured, engine, cache)
    _show(document, as_json, report)
    return 1 if found.skipped else 0


def _measures(given: Sequence[str]) -> tuple[str, ...]:
    from retriever.evaluation import metrics

    try:
        for name in given:
            metrics.measure(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--measure") from None
    return tuple(dict.fromkeys([*given, *metrics.MEASURES]))


def _systems(codecs: Sequence[str], pools: Sequence[int], stages: Sequence[str], sweep: bool) -> list[dict[str, Any]]:
    """Every combination of what is asked for; in a sweep of all there is, finest first."""
    from index.codec import CODECS
    from index.directory import STAGES

    for option, given, known in (("--codec", codecs, CODECS), ("--candidates", stages, STAGES)):
        for name in given:
            if name not in known:
                raise click.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint=option)
    every = (tuple(CODECS), POOLS, tuple(stage for stage in STAGES if stage != "auto"))
    plain = (("int8",), (1,), ("auto",))
    chosen = [
        given or default for given, default in zip((codecs, pools, stages), every if sweep else plain, strict=True)
    ]
    return [{"codec": codec, "pool": pool, "candidates": stage} for codec, pool, stage in itertools.product(*chosen)]


def _chosen(sets: Sequence[QuestionSet], queries: int | None, languages: Sequence[str]) -> list[QuestionSet]:
    """Of each set the queries that are wanted; a set that has none in any of the languages is left out."""
    some = [found for found in sets if not languages or {query.lang for query in found.queries} & set(languages)]
    some = [found.only(languages) if languages else found for found in some or sets]
    return [found.sample(queries) if queries and found.queries else found for found in some]


def _check_pictures(sets: Sequence[QuestionSet], wanted: Sequence[str]) -> None:
    """Raise a usage error where pictures are to be read, and there are none."""
    for some in sets:
        if wanted and some.corpus.texts:
            raise click.UsageError(f"{some.name} is of texts and has no pictures to read: leave out {wanted[0]}")


def _measure(
    questions: QuestionSet,
    encoder: Encoder,
    systems: Sequence[Mapping[str, Any]],
    modes: Sequence[str],
    measures: Sequence[str],
    cache: Path,
    derive: bool,
    told: Callable[[str, int, int], None],
) -> Iterator[Result]:
    """Every system on one question set; the text lane, which knows no codec, once."""
    from retriever.evaluation.run import Encoded, run

    wanted = modes or (("visual",) if questions.smoke else ("hybrid",))
    known: Encoded = {}
    for number, system in enumerate(systems):
        some = [mode for mode in wanted if mode != "text" or number == 0]
        yield from run(
            questions,
            encoder,
            cache,
            **system,
            modes=some,
            measures=measures,
            derive=derive,
            known=known,
            told=told,
        )


def _measure_task(task: Any, encoder: Encoder, cache: Path, told: Callable[[str, int, int], None]) -> list[Any]:
    """The figures of what is no search: pairs of texts, of texts and pictures, and tasks of mteb."""
    from retriever.evaluation.alignment import measure_captions, measure_sentences
    from retriever.evaluation.pairs import Captioned, Sentences

    if isinstance(task, Captioned):
        return measure_captions(task, encoder, told)
    if isinstance(task, Sentences):
        return measure_sentences(task, encoder, told)
    from retriever.evaluation.mteb_tasks import measure

    told(task.metadata.name, 0, 1)
    return [measure(task, encoder, cache)]


def _made_up(
    questions: QuestionSet, encoder: Encoder, cache: Path, modes: Sequence[str], told: Callable[[str, int, int], None]
) -> QuestionSet:
    """Documents that come without questions, with some made of their words."""
    from retriever.evaluation.indexes import opened
    from retriever.evaluation.known_items import known_items

    if set(modes) - {"visual"}:
        raise click.UsageError("made-up questions are words of the pages: --mode visual is all that they can test")
    with opened(questions.corpus, encoder, cache, told=told)[0] as retriever:
        return known_items(questions, retriever)


def _write(
    folder: Path,
    document: dict[str, Any],
    measured: Sequence[tuple[QuestionSet, Sequence[Result]]],
    encoder: Encoder | None,
    cache: Path,
) -> None:
    """report.html, with what the best system missed; eval.json; runs/."""
    import json

    from retriever.evaluation import results
    from retriever.evaluation.gallery import MOST, gallery
    from retriever.evaluation.report import page

    folder.mkdir(parents=True, exist_ok=True)
    galleries: dict[str, list[dict[str, Any]]] = {}
    most = min(MOST, max(1, _SHOWN // max(len(measured), 1)))
    for questions, some in measured:
        if encoder is not None:
            seen = [result for result in some if result.system.mode != "baseline"]
            best = max(seen, key=lambda result: sum(result.values[document["measures"][0]].values()))
            galleries.setdefault(questions.name, []).extend(gallery(questions, encoder, cache, best, most))
    (folder / "report.html").write_text(page(document, galleries), "utf-8")
    (folder / "eval.json").write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")
    results.write_runs(folder / "runs", measured)


def _show(document: Mapping[str, Any], as_json: bool, report: Path | None) -> None:
    from retriever.evaluation import results

    first = document["measures"][0]
    rows = results.table(document["results"], first)
    if as_json:
        term.emit(dict(document) | {"table": rows, "report": report})
        return
    columns = ("dataset", "language", "system", "queries", first, "95 %")
    cells = [
        [row["dataset"] or "mean of all", row["language"], row["system"], row["queries"], f"{row['mean']:.3f}"]
        + [f"{row['low']:.3f} to {row['high']:.3f}"]
        for row in rows
    ]
    term.show_table(columns, cells)
    for task in document["tasks"]:
        value = "-" if task["value"] is None else f"{task['value']:.4f}"
        click.echo(f"{task['task']}\t{task['main_score']}\t{value}")
    for name, reason in document["skipped"].items():
        click.echo(f"  not measured: {name}: {term.printable(reason)}", err=True)
    if any(result["smoke"] for result in document["results"]):
        click.echo("Questions were made of words of the pages: a smoke test, easier than what people ask.", err=True)
    for result in document["results"]:
        for line in result["cost"].get("failed", ())[:5]:
            click.echo(f"  not searched: {term.printable(line)}", err=True)
    if report is not None:
        click.echo(f"Wrote {report / 'report.html'}.", err=True)


@click.command()
@click.argument("one", type=_FILE, metavar="A.json")
@click.argument("other", type=_FILE, metavar="B.json")
@click.option("--measure", metavar="NAME@K", help="One that both have; the first of A by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def compare(one: Path, other: Path, measure: str | None, as_json: bool) -> int:
    """Compare two results query by query.

    A.json and B.json are eval.json files of `octavo eval --report`.
    """
    from retriever.evaluation import results

    a, b = results.read(one), results.read(other)
    chosen = measure or a["measures"][0]
    rows = results.compare(a, b, chosen)
    if as_json:
        term.emit({"measure": chosen, "rows": rows})
        return 0
    columns = ("dataset", "queries", "A", "B", "B - A", "95 %", "p", "better", "worse")
    for systems in dict.fromkeys((row["systems"]["a"], row["systems"]["b"]) for row in rows):
        click.echo(f"{chosen}   A: {systems[0]}   B: {systems[1]}", err=True)
        some = [row for row in rows if tuple(row["systems"].values()) == systems]
        term.show_table(columns, [_compared(row) for row in some])
    return 0


def _compared(row: Mapping[str, Any]) -> list[Any]:
    span = f"{row['low']:+.3f} to {row['high']:+.3f}"
    figures = [f"{row['a']:.3f}", f"{row['b']:.3f}", f"{row['difference']:+.3f}", span, f"{row['p']:.4f}"]
    return [row["dataset"] or "mean of all", row["queries"], *figures, row["better"], row["worse"]]


COMMANDS = (evaluate, compare)
