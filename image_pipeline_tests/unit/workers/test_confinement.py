"""What a worker cannot see and do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from image_pipeline.workers.pool import ImageWorkers

from . import tasks
from .helpers import MEMORY, job, settings

SECRETS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "IMAGE_PIPELINE_CATALOG__URL",
    "DATABASE_URL",
    "GITHUB_TOKEN",
    "PGPASSWORD",
    "MY_SECRET",
}


@pytest.fixture(scope="module")
def confined() -> Iterator[Callable[..., Any]]:
    """Run one function in workers whose parent's environment holds secrets."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SECRETS:
            patch.setenv(name, "s3cret")
        patch.setenv("OMP_NUM_THREADS", "7")
        with ImageWorkers(settings()) as own:

            def call(function: Callable[..., Any]) -> Any:
                (outcome,) = own.run(function, [job(1)])
                assert outcome.error is None
                return outcome.value

            yield call


def test_no_secret_is_in_the_environment(confined: Callable[..., Any]) -> None:
    environment = confined(tasks.environment)
    assert "s3cret" not in environment.values()
    assert not SECRETS & environment.keys()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["PATH"] == ""


def test_workers_import_neither_dagster_nor_clients(confined: Callable[..., Any]) -> None:
    imported = confined(tasks.modules)
    assert "PIL" in imported
    assert not imported & {"dagster", "boto3", "botocore", "sqlalchemy", "pandas", "pytest"}


def test_images_find_everything_loaded(confined: Callable[..., Any]) -> None:
    """Otherwise the first image of each process would pay for it, in time and memory."""
    assert confined(tasks.modules_loaded_by_work) == set()


def test_limits(confined: Callable[..., Any]) -> None:
    limits = confined(tasks.limits)
    assert limits["RLIMIT_CORE"] == (0, 0)
    assert limits["RLIMIT_NOFILE"] == (128, 128)
    # 30 s for the image and 1 s of grace, on top of what the process used before.
    assert 31 <= limits["RLIMIT_CPU"][0] <= 31 + 10


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_memory_limit_counts_from_the_start(confined: Callable[..., Any]) -> None:
    soft, hard = confined(tasks.limits)["RLIMIT_AS"]
    mapped, _ = confined(tasks.mapped_and_cpu)
    assert soft == hard
    # A process that did next to nothing has mapped little since its start.
    assert 0.9 * MEMORY <= (soft - mapped) / 1e6 <= MEMORY


def test_interrupts_are_ignored(confined: Callable[..., Any]) -> None:
    assert confined(tasks.interrupt) == "still here"


def test_decoders_are_silenced(
    confined: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert confined(tasks.write_noise) > 0
    assert capfd.readouterr().err == ""
