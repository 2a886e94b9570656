"""``python -m benchmarks``: the command line of the benchmarks."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import click

from benchmarks import report

NAMES = (
    "overhead", "latency", "discovery", "memory", "throughput", "quality", "duplicates", "index",
    "warming", "manifests", "page", "housekeeping", "removal", "cluster", "load", "mirror",
    "intake", "recording", "mockups",
)  # fmt: skip

#: Variables that would measure another set-up than that of the checkout, or a Python that
#: compiles the package anew in every process it starts.
FOREIGN = ("IMAGE_PIPELINE_", "DAGSTER_", "AWS_", "PYTHONDONTWRITEBYTECODE")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[NAME ...]", type=click.Choice(NAMES))
@click.option(
    "--photos", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Your own photographs instead of generated ones of 12 MP.",
)  # fmt: skip
@click.option(
    "--images", type=click.IntRange(1), help="Photographs in a batch. [default: 100; quick: 12]"
)
@click.option(
    "--quick", is_flag=True, help="A few minutes in all; figures to look at, not to keep."
)
@click.option("--table", is_flag=True, help="Measure nothing: print what was kept as Markdown.")
def main(
    names: tuple[str, ...], photos: Path | None, images: int | None, quick: bool, table: bool
) -> None:
    """Measure the pipeline on this machine and print each figure beside its goal.

    \b
    overhead    a batch through Dagster, bucket and catalog, beside the image work alone
    latency     from an upload to its manifest, and what of that is not image work
    discovery   100 new keys among 100,000 known ones, beside dagster_aws's get_objects
    memory      peak memory of a run and its workers, for a batch and for one three times as big
    throughput  the imaging core beside a textbook script, sharp, pyvips and the codecs alone
    quality     what files score, how equal formats look, and what automatic quality reaches
    duplicates  which edits of pictures are found, and which different ones are not
    index       hashes near a hash among up to 10 million, beside FAISS and a BK-tree
    warming     an edge asked for 10,000 files, beside a load generator
    manifests   manifests from Redis, beside the bucket
    page        what a page of 24 photographs loads, beside their originals
    housekeeping  inventory and plan of a bucket of a million objects
    removal     deletions and moves, beside the same requests with nothing around them
    intake      permissions to upload at 200 requests a second, beside an answer of nothing
    load        small uploads that keep arriving, and what that does to queue, memory and UI
    mirror      files to an SFTP server, beside one connection for each of them
    recording   what it costs to write down what everything takes, and a report of a million
    mockups     a design on a product, beside a perspective transform with nothing around it
    cluster     image work on 1, 2 and 4 Dask workers, beside processes of this machine

    Without names all of them are measured: about two hours on two cores. Nothing else should
    run meanwhile. Photographs are generated once (0.7 GB) into .data/bench/photos. Results are
    kept as .data/bench/NAME.json. Run it in the checkout.

    \b
    python -m benchmarks --quick
    python -m benchmarks overhead --photos ~/Pictures --images 50
    python -m benchmarks --table >> docs/benchmarks.md
    """  # noqa: D301 - click wants the character itself
    chosen = names or NAMES
    if table:
        kept = [found for found in map(report.load, chosen) if found is not None]
        click.echo(report.markdown(kept))
        return
    for variable in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[variable]
    for name in chosen:
        module = importlib.import_module(f"benchmarks.{name}")
        found = module.measure(images or (12 if quick else 100), photos, quick)
        path = report.save(found)
        report.show(found)
        print(f"kept as {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
