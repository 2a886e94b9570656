"""What becomes of jobs, good and bad."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.workers.pool import ImageWorkers, Job, Outcome

from . import tasks
from .helpers import MEMORY, PROCESSES, job, outcomes, settings


def reason(outcome: Outcome[int, Any]) -> Reason:
    assert isinstance(outcome.error, Rejected)
    return outcome.error.reason


@pytest.fixture(scope="module")
def workers() -> Iterator[ImageWorkers]:
    with ImageWorkers(settings()) as shared:
        yield shared


@pytest.fixture
def flag(tmp_path: Path) -> Path:
    return tmp_path / "flag"


class TestResults:
    def test_every_job_gets_its_value(self, workers: ImageWorkers) -> None:
        found = outcomes(workers, tasks.size, (job(n) for n in range(40)))
        assert {key: outcome.value for key, outcome in found.items()} == {n: n for n in range(40)}
        assert all(outcome.error is None for outcome in found.values())

    def test_no_jobs(self, workers: ImageWorkers) -> None:
        assert list(workers.run(tasks.size, [])) == []

    def test_a_large_image_and_a_large_result_pass(self, workers: ImageWorkers) -> None:
        image = os.urandom(8_000_000)
        (outcome,) = workers.run(tasks.repeat, [Job("large", lambda: image, (2,))])
        assert outcome.value == image + image
        assert outcome.seconds > 0

    def test_images_are_worked_on_at_the_same_time(
        self, workers: ImageWorkers, tmp_path: Path
    ) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        found = outcomes(
            workers, tasks.meet, [job(1, fifo, os.O_RDONLY), job(2, fifo, os.O_WRONLY)]
        )
        assert [outcome.error for outcome in found.values()] == [None, None]


class TestErrors:
    def test_an_error_comes_back_as_itself_with_the_worker_s_traceback(
        self, workers: ImageWorkers
    ) -> None:
        found = outcomes(workers, tasks.fail, [job(1, "value"), job(2, "nothing")])
        error = found[1].error
        assert isinstance(error, ValueError)
        assert str(error) == "no such thing"
        assert "tasks.py" in error.__notes__[0]
        assert found[2].value == 2

    @pytest.mark.parametrize(
        ("how", "text"),
        [
            ("unpicklable", "has a lock"),
            ("unpickles wrongly", "two arguments"),
            ("exit", "good bye"),
            ("result", "lock"),
        ],
    )
    def test_what_cannot_be_pickled_is_quoted(
        self, workers: ImageWorkers, how: str, text: str
    ) -> None:
        found = outcomes(workers, tasks.fail, [job(1, how), job(2, "nothing")])
        assert not isinstance(found[1].error, Rejected | None)
        assert text in str(found[1].error)
        assert found[2].value == 2

    def test_a_rejection_is_not_tried_again(self, workers: ImageWorkers, flag: Path) -> None:
        found = outcomes(workers, tasks.reject, [job(1, flag)])
        assert reason(found[1]) is Reason.decode_error
        assert flag.read_text() == "x"

    def test_an_image_that_cannot_be_loaded_costs_only_itself(self, workers: ImageWorkers) -> None:
        def load() -> bytes:
            raise ConnectionResetError("by peer")

        jobs = [job(1), Job(2, load), Job(3, load), job(4)]
        found = outcomes(workers, tasks.size, jobs)
        assert isinstance(found[2].error, ConnectionResetError)
        assert isinstance(found[3].error, ConnectionResetError)
        assert (found[1].value, found[4].value) == (1, 4)

    def test_arguments_that_cannot_be_pickled(self, workers: ImageWorkers) -> None:
        found = outcomes(workers, tasks.fail, [job(1, lambda: None), job(2, "nothing")])
        assert isinstance(found[1].error, Exception)
        assert not isinstance(found[1].error, Rejected)
        assert found[2].value == 2

    def test_a_function_the_worker_cannot_import(
        self, workers: ImageWorkers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def only_here(data: bytes) -> int:
            return len(data)

        only_here.__qualname__ = "only_here"
        monkeypatch.setattr(tasks, "only_here", only_here, raising=False)
        only_here.__module__ = tasks.__name__
        found = outcomes(workers, only_here, [job(1), job(2)])
        assert [type(outcome.error) for outcome in found.values()] == [AttributeError] * 2

    def test_an_error_of_the_jobs_themselves_is_raised(self, workers: ImageWorkers) -> None:
        def jobs() -> Iterator[Job[int]]:
            yield job(1)
            raise LookupError("the list ends here")

        with pytest.raises(LookupError):
            list(workers.run(tasks.size, jobs()))
        assert outcomes(workers, tasks.size, [job(5)])[5].value == 5


class TestDeaths:
    @pytest.mark.parametrize("how", ["segfault", "abort", "exit 3", "exit 0", "kill"])
    def test_a_dead_worker_costs_its_image_only(self, workers: ImageWorkers, how: str) -> None:
        jobs = [job(n, how if n == 4 else None) for n in range(12)]
        found = outcomes(workers, tasks.die, jobs)
        assert reason(found[4]) is Reason.crashed_decoder
        assert {n for n, outcome in found.items() if outcome.value == n} == set(range(12)) - {4}

    @pytest.mark.parametrize("how", ["segfault", "kill"])
    def test_an_accident_is_forgiven(self, workers: ImageWorkers, how: str, flag: Path) -> None:
        found = outcomes(workers, tasks.die_once, [job(7, how, flag)])
        assert flag.exists()
        assert found[7].value == 7

    def test_out_of_memory(self, workers: ImageWorkers) -> None:
        jobs = [job(n, 2 * MEMORY if n == 1 else 1) for n in range(4)]
        found = outcomes(workers, tasks.hog, jobs)
        assert reason(found[1]) is Reason.out_of_memory
        assert [found[n].value for n in (0, 2, 3)] == [1_000_000] * 3

    def test_most_of_the_memory_may_be_used(self, workers: ImageWorkers) -> None:
        found = outcomes(workers, tasks.hog, [job(1, 230)])
        assert MEMORY == 256
        assert found[1].value == 230_000_000

    def test_out_of_memory_once(self, workers: ImageWorkers, flag: Path) -> None:
        found = outcomes(workers, tasks.hog_once, [job(7, 2 * MEMORY, flag)])
        assert found[7].value == 7

    def test_timeout(self, flag: Path) -> None:
        with ImageWorkers(settings(seconds=0.5)) as own:
            found = outcomes(own, tasks.hang, [job(n, n == 1) for n in range(4)])
            assert reason(found[1]) is Reason.timeout
            # The second attempt had twice the time.
            assert "1 s" in str(found[1].error)
            assert [found[n].value for n in (0, 2, 3)] == [0, 2, 3]
            assert outcomes(own, tasks.hang_once, [job(7, flag)])[7].value == 7


class TestAdmission:
    def test_jobs_are_taken_and_loaded_only_as_outcomes_are(self, workers: ImageWorkers) -> None:
        taken, given, loaded = 0, 0, 0

        def load() -> bytes:
            nonlocal loaded
            loaded += 1
            return b""

        def jobs() -> Iterator[Job[int]]:
            nonlocal taken
            for taken in range(1, 61):
                assert taken - given <= PROCESSES + 2
                yield Job(taken, load, (), 1.0)

        for given, _ in enumerate(workers.run(tasks.size, jobs()), 1):
            assert loaded - given <= PROCESSES + 1
        assert (taken, given, loaded) == (60, 60, 60)

    def test_nothing_happens_before_the_first_outcome_is_asked_for(
        self, workers: ImageWorkers
    ) -> None:
        untouched = iter([job(1)])
        workers.run(tasks.size, untouched)
        assert next(untouched).key == 1

    @pytest.mark.parametrize(
        ("megapixels", "together"), [(17.0, 1), (16.0, 2), (10.0, 3), (1.0, 3), (0.0, 1)]
    )
    def test_pixels_in_flight_are_bounded(
        self, workers: ImageWorkers, megapixels: float, together: int
    ) -> None:
        """2 workers with 256 MB at 16 bytes per pixel: 32 megapixels; unknown counts as 24."""
        loaded, given, most = 0, 0, 0

        def load() -> bytes:
            nonlocal loaded, most
            # One more is loaded as soon as one has ended, before its outcome is given.
            most = max(most, loaded - given)
            loaded += 1
            return b""

        jobs = (Job(n, load, (), megapixels) for n in range(8))
        for outcome in workers.run(tasks.size, jobs):
            assert outcome.error is None
            given += 1
        assert (given, most) == (8, together)

    def test_an_image_larger_than_the_bound_is_admitted_alone(self, workers: ImageWorkers) -> None:
        jobs = [job(1), job(2, megapixels=500.0), job(3)]
        found = outcomes(workers, tasks.size, jobs)
        assert {key: outcome.value for key, outcome in found.items()} == {1: 1, 2: 2, 3: 3}
