"""How large a container of its own a run needs, and the tags that ask a run launcher for it.

Pure: nothing here asks Dagster, Docker, ECS or Kubernetes anything. The launchers are those of
``deploy/launchers``; all other launchers start runs inside a container that somebody else sized.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from image_pipeline.settings import Settings

#: The run itself, 10^6 bytes: Dagster, pandas, pyarrow, connections. 264 were measured with
#: originals of 6 MB; originals on their way to workers and the index of hashes come on top.
RUN_MEGABYTES = 700

#: A worker besides its image, 10^6 bytes: numpy, SciPy, Pillow and the encoders. 192 were measured
#: with an image of 24 megapixels in it.
WORKER_MEGABYTES = 250

#: What a task of Fargate may have: units of CPU (1024 are one core) -> MiB of memory (AWS, "Fargate
#: task sizes" in the ECS developer guide).
FARGATE: dict[int, range] = {
    1024: range(2048, 8192 + 1, 1024),
    2048: range(4096, 16384 + 1, 1024),
    4096: range(8192, 30720 + 1, 1024),
    8192: range(16384, 61440 + 1, 4096),
    16384: range(32768, 122880 + 1, 8192),
}

#: GiB that a task of Fargate has on its disk without asking, and the most it may ask for.
FARGATE_DISK = (20, 200)

#: Of that disk, GiB for the image itself.
_IMAGE_GIBIBYTES = 3


class RunTooLargeError(ValueError):
    """No container of this launcher is large enough; the message names what to lower."""


@dataclass(frozen=True, slots=True)
class RunSize:
    """What a run needs: cores, and memory and disk in 10^6 bytes."""

    cores: int
    memory_megabytes: int
    disk_megabytes: int


def size_of_run(settings: Settings) -> RunSize | None:
    """What a batch needs at most, or None with ``workers.processes: auto``.

    A run then takes every core it finds: whoever configures the launcher decides. Cores:
    one for each worker process; the run itself mostly waits for them. Memory: the run and its
    workers, each with the most an image may use. Disk: the originals of one batch, which may be
    one upload larger than ``batches.max_megabytes``. With ``workers.cluster`` the work is
    elsewhere and one core is enough.
    """
    workers = settings.workers
    if workers.cluster is not None:
        processes = 0
    elif workers.processes == "auto":
        return None
    else:
        processes = workers.processes
    largest = max(source.limits.megabytes for source in settings.sources.values())
    return RunSize(
        cores=max(processes, 1),
        memory_megabytes=RUN_MEGABYTES + processes * (WORKER_MEGABYTES + workers.memory_megabytes),
        disk_megabytes=math.ceil(settings.batches.max_megabytes + largest),
    )


def tags_for(launcher: str, size: RunSize | None) -> dict[str, str]:
    """Tags of a run for the launcher with this class name; none for launchers without tags.

    ``EcsRunLauncher`` gets the smallest size that Fargate has, ``K8sRunLauncher`` requests and
    limits. ``DockerRunLauncher`` reads no tags: its sizes stand in deploy/launchers/docker.yaml.

    Raises :class:`RunTooLargeError`.
    """
    if size is None:
        return {}
    if launcher == "EcsRunLauncher":
        return _ecs(size)
    if launcher == "K8sRunLauncher":
        return {"dagster-k8s/config": json.dumps(_kubernetes(size))}
    return {}


def _ecs(size: RunSize) -> dict[str, str]:
    mebibytes = size.memory_megabytes * 10**6 / 2**20
    fitting = (
        (cpu, memory)
        for cpu, memories in FARGATE.items()
        for memory in memories
        if cpu >= size.cores * 1024 and memory >= mebibytes
    )
    found = next(fitting, None)
    gibibytes = math.ceil(size.disk_megabytes * 10**6 / 2**30) + _IMAGE_GIBIBYTES
    free, most = FARGATE_DISK
    if found is None or gibibytes > most:
        raise RunTooLargeError(
            f"no Fargate task has {size.cores} cores, {size.memory_megabytes} MB of memory and"
            f" {size.disk_megabytes} MB of disk: lower workers.processes,"
            " workers.memory_megabytes or batches.max_megabytes"
        )
    tags = {"ecs/cpu": str(found[0]), "ecs/memory": str(found[1])}
    return tags | {"ecs/ephemeral_storage": str(gibibytes)} if gibibytes > free else tags


def _kubernetes(size: RunSize) -> dict[str, object]:
    amounts = {
        "cpu": str(size.cores),
        "memory": f"{size.memory_megabytes}M",
        "ephemeral-storage": f"{size.disk_megabytes}M",
    }
    # Twice the disk as a limit: a pod that is over its limit is evicted, logs count too.
    limits = amounts | {"ephemeral-storage": f"{2 * size.disk_megabytes}M"}
    return {"container_config": {"resources": {"requests": amounts, "limits": limits}}}
