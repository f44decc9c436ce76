"""`octavo train`: adapters of Jina v4, trained on one's own pages and questions."""

from __future__ import annotations

from pathlib import Path

import click

from retriever import terminal as term


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FOLDER|FILE...")
@click.option("--model", "name", required=True, metavar="NAME|FOLDER", help="Jina v4, or what an earlier run made.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where the run and its model are kept.")
@click.option(
    "--phase",
    type=click.Choice(["pairs", "retrieval", "text-matching", "code"]),
    default="pairs",
    show_default=True,
    help="All tasks at once from pairs, or one of them.",
)
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option(
    "--batch", type=click.IntRange(min=2), default=32, show_default=True, help="Pairs seen beside each other."
)
@click.option("--accumulate", type=click.IntRange(min=1), default=1, show_default=True, help="Batches a step.")
@click.option("--at-once", type=click.IntRange(min=1), default=4, show_default=True, help="Inputs in memory.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=1e-4, show_default=True, help="Of AdamW.")
@click.option("--negatives", type=click.IntRange(min=1), default=4, show_default=True, help="Hard ones a pair.")
@click.option("--held-out", type=click.FloatRange(0, 0.9), default=0.05, show_default=True, help="Share to test on.")
@click.option("--every", type=click.IntRange(min=1), default=100, show_default=True, help="Steps between tests.")
@click.option("--seed", default=0, show_default=True)
@click.option("--split", default="train", show_default=True, help="Of a data set that has several.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def train(
    sources: tuple[str, ...],
    name: str,
    out: Path,
    phase: str,
    steps: int,
    batch: int,
    accumulate: int,
    at_once: int,
    rate: float,
    negatives: int,
    held_out: float,
    every: int,
    seed: int,
    split: str,
    as_json: bool,
) -> int:
    """Fine-tune Jina v4 on pages and questions.

    A FOLDER has pdf/ or pages/, queries.jsonl and qrels.tsv, or is a data set with columns query and image; a FILE has
    query, positive and negative, or sentence1, sentence2 and score. Interrupted, the same command goes on. The model
    it makes is OUT/model, a name for --encoder.
    """
    from index.errors import OctavoError
    from retriever.encoders import load_encoder
    from retriever.encoders.jina_v4 import JinaV4
    from retriever.evaluation.datasets import cache_folder
    from retriever.training.data import read
    from retriever.training.run import train as run

    materials = [material for source in sources for material in read(source, split, cache_folder())]
    model = load_encoder(name)
    if not isinstance(model, JinaV4):
        raise OctavoError(f"{name} has no adapters that can be trained; a model of the layout of Jina v4 is expected")
    with term.stages(as_json) as told:
        done = run(
            model,
            materials,
            out,
            phase=phase,
            steps=steps,
            batch_size=batch,
            accumulated=accumulate,
            at_once=at_once,
            rate=rate,
            negatives=negatives,
            held_out=held_out,
            every=every,
            seed=seed,
            told=told,
        )
    if as_json:
        term.emit(done)
        return 1 if done["failed"] else 0
    columns = list(dict.fromkeys(key for line in done["evaluations"] for key in line["held_out"]))
    rows = [[line["step"], *(f"{line['held_out'].get(key, 0):.4f}" for key in columns)] for line in done["evaluations"]]
    term.show_table(["step", *columns], rows)
    for page, reason in done["failed"].items():
        click.echo(f"  left out: {term.printable(page)}: {term.printable(reason)}", err=True)
    click.echo(f"Wrote {done['model']}.", err=True)
    return 1 if done["failed"] else 0


COMMANDS = (train,)
