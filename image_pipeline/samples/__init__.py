"""Photographs made by arithmetic: the pictures of the demo, the tests and the benchmarks.

:mod:`~image_pipeline.samples.canvas` holds what scenes are drawn with. The scenes themselves are
in :mod:`~image_pipeline.samples.outdoors` and :mod:`~image_pipeline.samples.studio`, the latter
built from :mod:`~image_pipeline.samples.solids`. In :mod:`~image_pipeline.samples.developing` a
drawing becomes a photograph, in :mod:`~image_pipeline.samples.files` the files of the demo, and
:mod:`~image_pipeline.samples.templates` has products to put designs on. The same seed gives the
same pixels.
"""

from __future__ import annotations

from image_pipeline.samples.developing import photograph
from image_pipeline.samples.files import SAMPLES, Sample, write_samples

__all__ = ["SAMPLES", "Sample", "photograph", "write_samples"]
