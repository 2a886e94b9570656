"""``image-pipeline mockup``, and its part of the demo."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import click
import yaml

from image_pipeline.catalog.engine import Catalog
from image_pipeline.commands.display import print_json, print_table, size
from image_pipeline.commands.files import read_file
from image_pipeline.imaging.mockup_check import base_size
from image_pipeline.imaging.mockup_template import (
    DESCRIPTION,
    Template,
    TemplateError,
    read_template,
)
from image_pipeline.imaging.mockups import preview
from image_pipeline.imaging.verdict import Rejected
from image_pipeline.samples.templates import TEMPLATES, template_files
from image_pipeline.settings import FormatName, Limits, MockupSettings, Settings, find_config
from image_pipeline.stages.mockups import Tally, make_mockups
from image_pipeline.stages.templates import FILE_BYTES, folders, wanted_names, wants_mockups
from image_pipeline.stages.tools import Tools, quiet
from image_pipeline.store.bucket import Bucket, Object, ObjectGoneError
from image_pipeline.store.layout import mockup_manifests
from image_pipeline.workers.opening import open_workers
from image_pipeline.workers.pool import Job

#: Formats of a preview by the end of its file's name.
_KINDS: dict[str, FormatName | Literal["png"]] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".webp": "webp",
    ".avif": "avif",
}


@dataclass(frozen=True, slots=True)
class _Folder:
    """The files of a template wherever they lie: their sizes in bytes, and how to read one."""

    name: str
    sizes: Mapping[str, int]
    read: Callable[[str], bytes]

    def load(self) -> tuple[Template, dict[str, bytes]]:
        """The template and the pictures it names, as far as there are any."""
        if DESCRIPTION not in self.sizes:
            raise TemplateError(self.name, "", f"has no {DESCRIPTION}: put one into its folder")
        template = read_template(self.name, self._bytes(DESCRIPTION))
        return template, {name: self._bytes(name) for name in template.files if name in self.sizes}

    def _bytes(self, name: str) -> bytes:
        if self.sizes[name] > FILE_BYTES:
            message = f"{name} has more than {FILE_BYTES // 1_000_000} MB"
            raise TemplateError(self.name, DESCRIPTION, message)
        return self.read(name)


def run_preview(settings: Settings, name: str, design: Path, out: Path) -> int:
    """Write a design on a template. Raises ``click.ClickException`` where that cannot be done."""
    kind = _KINDS.get(out.suffix.lower())
    if kind is None:
        raise click.UsageError(f"--out: {out.name!r} has to end with one of {', '.join(_KINDS)}")
    limits = Limits()
    try:
        data = read_file(design, limits)
        template, files = _found(settings, name).load()
        with open_workers(settings.workers.with_processes(1)) as workers:
            job = Job(name, lambda: data, (template, files, limits, kind))
            (outcome,) = workers.run(preview, [job])
        if outcome.value is None:
            raise outcome.error or RuntimeError(f"{design}: nothing came of it")
        out.write_bytes(outcome.value)
    except TemplateError as error:
        raise click.ClickException(str(error)) from None
    except Rejected as error:
        raise click.ClickException(f"{design}: {error.message}") from None
    except OSError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{out}: {design.name} on {template.name}, {size(len(outcome.value))}")
    return 0


def run_check(settings: Settings, name: str, as_json: bool) -> int:
    """Say what a template is, or what is wrong with it; the exit code is 1 then."""
    (entry,) = _entries(settings, [_found(settings, name)])
    if as_json:
        print_json(entry)
    elif entry["problem"]:
        click.echo(entry["problem"], err=True)
    else:
        print_table(("field", "value"), _shown(entry))
    return 1 if entry["problem"] else 0


def run_list(settings: Settings, as_json: bool) -> int:
    """Show every template of the bucket, and those that a source names and that are not there.

    The exit code is 1 if one of them cannot be used.
    """
    bucket, prefix = Bucket(settings.bucket), settings.mockups.templates
    there = [
        _in_bucket(bucket, prefix, name, files) for name, files in folders(bucket, prefix).items()
    ]
    used = _users(settings, {one.name for one in there if DESCRIPTION in one.sizes})
    there += [_Folder(name, {}, _nothing) for name in used.keys() - {one.name for one in there}]
    entries = _entries(settings, sorted(there, key=lambda one: one.name))
    for entry in entries:
        entry["sources"] = used.get(entry["template"], [])
    if as_json:
        print_json({"templates": entries})
    elif not entries:
        click.echo(f"There are no templates below {prefix!r} in the bucket {bucket.name!r}.")
    else:
        columns = ("template", "sources", "base", "place", "files", "problem")
        print_table(columns, [_row(entry) for entry in entries], numbers=("files",))
    return 1 if any(entry["problem"] for entry in entries) else 0


def rehearse(settings: Settings, config: Path | None, bucket: Bucket) -> int:
    """Make mockups of the demo's pictures, change a template, switch them off; 0 if all is well.

    One picture on each template stays in ``.data/mockups`` beside the settings file. The templates
    are gone at the end, and what was published is withdrawn.
    """
    source = next(iter(settings.sources))
    if wants_mockups(settings):
        print("Mockups are not rehearsed where settings switch them on: 'make dev' makes them.")
        return 0
    found = find_config(config)
    folder = (found.parent if found else Path()) / ".data" / "mockups"
    with closing(Catalog(settings.catalog.url)) as catalog:
        rehearsal = _Rehearsal(settings, source, bucket, catalog)
        try:
            _put_samples(bucket)
            first = rehearsal.make("on three templates", "all")
            shown = _shown_to_people(bucket, source, folder)
            _put_samples(bucket, changed="poster")
            second = rehearsal.make("one of them has changed", "all")
        finally:
            bucket.delete([one.key for one in bucket.list(_REHEARSED)])
            last = rehearsal.make("switched off", ())
    print(f"\nMockups of {source!r}\n")
    columns = ("", "composed", "files", "bytes", "withdrawn", "seconds")
    print_table(columns, rehearsal.rows, numbers=columns[1:])
    for path in shown:
        print(f"  {path}")
    designs = first.rendered // len(TEMPLATES)
    good = first.published == first.rendered == len(TEMPLATES) * designs > 0
    return 0 if good and second.rendered == designs and last.withdrawn == first.rendered else 1


#: Where the templates of the rehearsal lie in the bucket, apart from any of one's own.
_REHEARSED = "templates-rehearsal/"


class _Rehearsal:
    """Mockups of one source of the demo, with settings that switch them on and off."""

    def __init__(self, settings: Settings, source: str, bucket: Bucket, catalog: Catalog) -> None:
        self.settings = settings
        self.source = source
        self.bucket = bucket
        self.catalog = catalog
        self.rows: list[tuple[Any, ...]] = []

    def make(self, what: str, asked: Literal["all"] | tuple[str, ...]) -> Tally:
        """What the asset does, and a row that tells of it."""
        started = time.monotonic()
        source = self.settings.sources[self.source].model_copy(update={"mockups": asked})
        update = {
            "sources": {**self.settings.sources, self.source: source},
            "mockups": MockupSettings(templates=_REHEARSED),
        }
        rehearsed = self.settings.model_copy(update=update)
        tools = Tools.open(rehearsed, self.bucket, self.catalog, quiet)
        try:
            tally = make_mockups(tools, self.source)
        finally:
            tools.workers.close()
            tools.spool.clear()
        numbers = (tally.rendered, tally.files, size(tally.bytes_out), tally.withdrawn)
        self.rows.append((what, *numbers, f"{time.monotonic() - started:.1f}"))
        return tally


def _put_samples(bucket: Bucket, changed: str | None = None) -> None:
    """Put all sample templates, or one of them with less of its light."""
    for name in TEMPLATES if changed is None else (changed,):
        files = template_files(name, scale=0.4)
        about = yaml.safe_load(files[DESCRIPTION])
        # Without AVIF, which takes longer than all the rest.
        about["output"] = {"formats": {"webp": {}, "jpeg": {}}}
        if changed:
            about["layers"][0]["opacity"] = 0.8
        files[DESCRIPTION] = yaml.safe_dump(about).encode()
        for file, data in files.items():
            bucket.put(f"{_REHEARSED}{name}/{file}", data, "application/octet-stream")


def _shown_to_people(bucket: Bucket, source: str, folder: Path) -> list[Path]:
    """The largest WebP of one mockup of each template, found by its manifest as a page would."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in TEMPLATES:
        manifest = next(bucket.list(f"{mockup_manifests(source)}{name}/"), None)
        if manifest is not None:
            variants = json.loads(bucket.get(manifest.key))["variants"]
            best = max(
                (one for one in variants if one["format"] == "webp"), key=itemgetter("width")
            )
            path = folder / f"{name}.webp"
            path.write_bytes(bucket.get(best["key"]))
            paths.append(path)
    return paths


def _found(settings: Settings, name: str) -> _Folder:
    """The template of a local folder, else the one of that name in the bucket."""
    path = Path(name)
    if path.is_dir():
        sizes = {one.name: one.stat().st_size for one in path.iterdir() if one.is_file()}
        return _Folder(path.resolve().name, sizes, lambda file: (path / file).read_bytes())
    bucket, prefix = Bucket(settings.bucket), settings.mockups.templates
    there = folders(bucket, prefix)
    if name not in there:
        raise click.ClickException(
            f"there is no folder {name!r} here, and no {prefix}{name}/ in the bucket"
            f" {bucket.name!r}; 'image-pipeline mockup list' shows what is there"
        )
    return _in_bucket(bucket, prefix, name, there[name])


def _in_bucket(bucket: Bucket, prefix: str, name: str, files: Mapping[str, Object]) -> _Folder:
    sizes = {file: one.size for file, one in files.items()}
    return _Folder(name, sizes, lambda file: bucket.get(f"{prefix}{name}/{file}"))


def _nothing(_: str) -> bytes:
    raise AssertionError("nothing is read of a folder without files")


def _users(settings: Settings, known: set[str]) -> dict[str, list[str]]:
    """The sources that want each template."""
    users: dict[str, list[str]] = {}
    for source in wants_mockups(settings):
        for name in wanted_names(settings.sources[source].mockups, known):
            users.setdefault(name, []).append(source)
    return users


def _entries(settings: Settings, all_of: Sequence[_Folder]) -> list[dict[str, Any]]:
    """What can be said of templates. Their pictures are decoded in worker processes."""
    entries: dict[str, dict[str, Any]] = {}
    jobs = []
    for folder in all_of:
        entry = entries[folder.name] = {"template": folder.name, "problem": None}
        try:
            template, files = folder.load()
        except (TemplateError, OSError, ObjectGoneError) as error:
            entry["problem"] = str(error)
            continue
        entry.update(_described(template, files))
        jobs.append(Job(folder.name, lambda: b"", (template, files)))
    if jobs:
        with open_workers(settings.workers) as workers:
            for outcome in workers.run(base_size, jobs):
                if outcome.value is None:
                    entries[outcome.key]["problem"] = str(outcome.error)
                else:
                    entries[outcome.key]["base"] = dict(
                        zip(("width", "height"), outcome.value, strict=True)
                    )
    return list(entries.values())


def _described(template: Template, files: Mapping[str, bytes]) -> dict[str, Any]:
    about = template.description
    return {
        "base": None,
        "place": "quad" if about.place.quad else "box",
        "fit": about.place.fit,
        "mask": about.mask,
        "layers": [layer.model_dump() for layer in about.layers],
        "files": {name: len(data) for name, data in files.items()},
        "sizes": sorted(about.output.sizes),
        "formats": list(about.output.formats.names),
    }


def _pixels(entry: Mapping[str, Any]) -> str:
    base = entry.get("base")
    return f"{base['width']} x {base['height']}" if base else "-"


def _row(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        entry["template"],
        ", ".join(entry["sources"]) or "-",
        _pixels(entry),
        f"{entry['place']}, {entry['fit']}" if "place" in entry else "-",
        len(entry.get("files", ())),
        entry["problem"] or "",
    )


def _shown(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    layers = (f"{one['mode']} {one['file']} ({one['opacity']:g})" for one in entry["layers"])
    return [
        ("template", entry["template"]),
        ("base", _pixels(entry)),
        ("place", f"{entry['place']}, {entry['fit']}"),
        ("mask", entry["mask"] or "-"),
        ("layers", ", ".join(layers) or "-"),
        ("files", ", ".join(f"{name} {size(count)}" for name, count in entry["files"].items())),
        ("output", f"{', '.join(entry['sizes'])} in {', '.join(entry['formats'])}"),
    ]
