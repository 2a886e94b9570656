"""Whether a template can be used, asked in a worker process like everything that decodes."""

from __future__ import annotations

from collections.abc import Mapping

from image_pipeline.imaging.mockup_template import Template
from image_pipeline.imaging.mockups import prepare


def base_size(
    description: bytes,
    template: Template,
    files: Mapping[str, bytes],
) -> tuple[int, int]:
    """Width and height of a template's base in pixels. Raises ``TemplateError``.

    Workers hand over bytes first; those of the description are read by now.
    """
    return prepare(template, files).base.size
