"""Templates of mockups from the bucket: which there are, and which of them can be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from image_pipeline.imaging.mockup_check import base_size
from image_pipeline.imaging.mockup_template import (
    DESCRIPTION,
    Template,
    TemplateError,
    read_template,
    template_fingerprint,
)
from image_pipeline.imaging.recipe import encoder_versions
from image_pipeline.settings import Settings
from image_pipeline.stages.tools import Tools
from image_pipeline.store.bucket import Bucket, Object, ObjectGoneError
from image_pipeline.workers.pool import Job

#: Bytes of a picture of a template: the largest that is accepted, 16 million pixels, has 64 MB
#: without any compression.
FILE_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Ready:
    """A template that can be used, with its pictures.

    ``recipe`` changes with whatever changes its mockups; ``width`` and ``height`` are those of
    its base in pixels.
    """

    template: Template
    files: Mapping[str, bytes]
    recipe: str
    width: int
    height: int


@dataclass(slots=True)
class Templates:
    """The templates of the bucket: those that can be used, and why others cannot, by name."""

    ready: dict[str, Ready] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def known(self) -> set[str]:
        """Every name that has a folder."""
        return self.ready.keys() | self.problems.keys()


def folders(bucket: Bucket, prefix: str) -> dict[str, dict[str, Object]]:
    """The files of each folder right below ``prefix``, by their names; nothing is read of them."""
    found: dict[str, dict[str, Object]] = {}
    for one in bucket.list(prefix):
        folder, slash, file = one.key.removeprefix(prefix).partition("/")
        if slash and file and "/" not in file:
            found.setdefault(folder, {})[file] = one
    return found


def wanted_names(asked: str | Collection[str], known: Collection[str]) -> list[str]:
    """The templates that a source wants: ``asked`` by its settings, ``all`` that are ``known``."""
    return sorted(known if asked == "all" else asked)


def wants_mockups(settings: Settings) -> list[str]:
    """The sources that want mockups."""
    return sorted(name for name, source in settings.sources.items() if source.mockups)


def state_of(settings: Settings, found: Mapping[str, Mapping[str, Object]]) -> str:
    """12 hex digits that change with a file of a template, and with who wants which."""
    document: dict[str, Any] = {
        "wanted": {name: settings.sources[name].mockups for name in wants_mockups(settings)},
        "files": {
            folder: {name: one.etag for name, one in files.items()}
            for folder, files in found.items()
        },
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]


def load_templates(tools: Tools) -> Templates:
    """Read and check every template that some source wants, in workers where pictures are decoded.

    A broken one is a problem of its own: all others can be used.
    """
    settings = tools.settings
    found = folders(tools.bucket, settings.mockups.templates)
    with_description = {name for name, files in found.items() if DESCRIPTION in files}
    made = Templates()
    read: dict[str, tuple[Template, dict[str, bytes]]] = {}
    for name in sorted(_asked_for(settings, with_description)):
        try:
            read[name] = _read(tools.bucket, name, found.get(name, {}))
        except (TemplateError, ObjectGoneError) as error:
            made.problems[name] = str(error)
    for outcome in tools.workers.run(base_size, _jobs(read)):
        if outcome.value is None:
            made.problems[outcome.key] = _told(outcome.key, outcome.error)
        else:
            template, files = read[outcome.key]
            recipe = mockup_recipe(template, files)
            made.ready[outcome.key] = Ready(template, files, recipe, *outcome.value)
    return made


def _asked_for(settings: Settings, known: Collection[str]) -> set[str]:
    return {
        template
        for source in wants_mockups(settings)
        for template in wanted_names(settings.sources[source].mockups, known)
    }


def _read(
    bucket: Bucket, name: str, found: Mapping[str, Object]
) -> tuple[Template, dict[str, bytes]]:
    if DESCRIPTION not in found:
        message = f"has no {DESCRIPTION}: put one into its folder, or take it out of the settings"
        raise TemplateError(name, "", message)
    template = read_template(name, bucket.get(found[DESCRIPTION].key))
    for file in template.files:
        if file in found and found[file].size > FILE_BYTES:
            message = f"{file} has more than {FILE_BYTES // 1_000_000} MB"
            raise TemplateError(name, DESCRIPTION, message)
    files = {file: bucket.get(found[file].key) for file in template.files if file in found}
    template_fingerprint(template, files)  # says which are missing
    return template, files


def _jobs(read: Mapping[str, tuple[Template, dict[str, bytes]]]) -> Iterator[Job[str]]:
    for name, (template, files) in read.items():
        yield Job(name, lambda: b"", (template, files))


def _told(name: str, error: Exception | None) -> str:
    if isinstance(error, TemplateError):
        return str(error)
    return f"template {name}: could not be checked: {error}"


def mockup_recipe(template: Template, files: Mapping[str, bytes]) -> str:
    """12 hex digits that change with the template, its pictures, its name and the encoders."""
    document = [template.name, template_fingerprint(template, files), encoder_versions()]
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]
