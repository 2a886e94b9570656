"""How large a run's own container is asked for."""

import json

import pytest

from image_pipeline.run_size import (
    FARGATE,
    RUN_MEGABYTES,
    WORKER_MEGABYTES,
    RunSize,
    RunTooLargeError,
    size_of_run,
    tags_for,
)
from image_pipeline.settings import Settings


def settings(**workers):
    return Settings(
        workers=workers,
        batches={"max_megabytes": 1000},
        sources={
            "small": {"prefix": "uploads/small/", "limits": {"megabytes": 10}},
            "large": {"prefix": "uploads/large/", "limits": {"megabytes": 300}},
        },
    )


def test_a_run_needs_what_its_workers_may_use_and_itself():
    found = size_of_run(settings(processes=4, memory_megabytes=1024))
    assert found.cores == 4
    assert found.memory_megabytes == RUN_MEGABYTES + 4 * (WORKER_MEGABYTES + 1024)
    # A batch closes when it is full: its last upload may have been too large for it.
    assert found.disk_megabytes == 1300


def test_as_many_cores_as_there_are_is_no_size():
    assert size_of_run(settings(processes="auto")) is None
    assert tags_for("EcsRunLauncher", None) == {}


def test_work_that_is_done_elsewhere_needs_little():
    found = size_of_run(settings(processes=16, cluster="tcp://scheduler:8786"))
    assert (found.cores, found.memory_megabytes) == (1, RUN_MEGABYTES)


@pytest.mark.parametrize("launcher", ["DefaultRunLauncher", "DockerRunLauncher", ""])
def test_launchers_that_read_no_tags_get_none(launcher):
    assert tags_for(launcher, RunSize(2, 3000, 1000)) == {}


# AWS, "Fargate task sizes": 1 vCPU with 2 to 8 GB, 2 with 4 to 16, 4 with 8 to 30, 8 with 16 to
# 60 by 4, 16 with 32 to 120 by 8.
@pytest.mark.parametrize(
    ("cores", "megabytes", "cpu", "memory"),
    [
        (1, 700, "1024", "2048"),
        (2, 3248, "2048", "4096"),
        # 4,300 MB are more than 4,096 MiB.
        (2, 4300, "2048", "5120"),
        # Much memory brings cores along.
        (1, 9000, "2048", "9216"),
        (3, 4000, "4096", "8192"),
        (8, 17_200, "8192", "20480"),
        (16, 120_000, "16384", "114688"),
    ],
)
def test_the_smallest_task_of_fargate(cores, megabytes, cpu, memory):
    tags = tags_for("EcsRunLauncher", RunSize(cores, megabytes, 1300))
    assert tags == {"ecs/cpu": cpu, "ecs/memory": memory}
    assert int(tags["ecs/memory"]) in FARGATE[int(cpu)]


def test_a_disk_larger_than_what_is_free_is_asked_for():
    assert "ecs/ephemeral_storage" not in tags_for("EcsRunLauncher", RunSize(1, 700, 18_000))
    # 30 GB are 27.9 GiB, and the image.
    tags = tags_for("EcsRunLauncher", RunSize(1, 700, 30_000))
    assert tags["ecs/ephemeral_storage"] == "31"


@pytest.mark.parametrize(
    "size", [RunSize(17, 20_000, 1000), RunSize(4, 140_000, 1000), RunSize(1, 700, 300_000)]
)
def test_what_no_task_of_fargate_has_is_refused(size):
    with pytest.raises(RunTooLargeError, match=r"lower workers\.processes"):
        tags_for("EcsRunLauncher", size)


def test_a_pod_gets_what_it_asks_for():
    (tag,) = tags_for("K8sRunLauncher", RunSize(2, 3248, 1064)).items()
    assert tag[0] == "dagster-k8s/config"
    resources = json.loads(tag[1])["container_config"]["resources"]
    assert resources["requests"] == {"cpu": "2", "memory": "3248M", "ephemeral-storage": "1064M"}
    assert resources["limits"] == {"cpu": "2", "memory": "3248M", "ephemeral-storage": "2128M"}
