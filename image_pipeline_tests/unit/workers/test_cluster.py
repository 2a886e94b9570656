"""Images on a real Dask cluster whose workers are killed."""

import os
import signal

import pytest

from image_pipeline.imaging.rendering import process_image
from image_pipeline.imaging.verdict import Reason, Rejected
from image_pipeline.settings import Limits, Recipe, Workers
from image_pipeline.workers import cluster
from image_pipeline.workers.child import WorkerError
from image_pipeline.workers.cluster import ClusterWorkers
from image_pipeline.workers.opening import open_workers
from image_pipeline.workers.pool import ImageWorkers, Job
from image_pipeline_tests.dask_cluster import DaskCluster, end
from image_pipeline_tests.unit.imaging.builders import a_photograph, encoded

from . import tasks
from .helpers import MEMORY, job, outcomes


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    with DaskCluster(tmp_path_factory.mktemp("dask")) as running:
        yield running


@pytest.fixture
def own_dask(tmp_path):
    """One that a test may ruin."""
    with DaskCluster(tmp_path / "dask") as running:
        yield running


def rules(dask, seconds=30.0):
    return Workers(cluster=dask.address, seconds_per_image=seconds, memory_megabytes=MEMORY)


@pytest.fixture
def workers(dask):
    with ClusterWorkers(rules(dask)) as connected:
        yield connected


def test_one_setting_chooses(dask, tmp_path):
    assert isinstance(open_workers(rules(dask)), ClusterWorkers)
    assert isinstance(open_workers(Workers(), tmp_path), ImageWorkers)
    # Asked for by number, they are processes of this machine.
    assert isinstance(open_workers(rules(dask).with_processes(1)), ImageWorkers)


def test_every_job_gets_its_value_and_none_is_worked_on_here(workers):
    found = outcomes(workers, tasks.size, (job(n) for n in range(40)))
    assert {key: outcome.value for key, outcome in found.items()} == {n: n for n in range(40)}
    processes = {
        one.value for one in outcomes(workers, tasks.process_id, map(job, range(8))).values()
    }
    assert os.getpid() not in processes
    assert list(workers.run(tasks.size, [])) == []


def test_a_picture_becomes_the_same_files_as_on_one_machine(workers):
    data = encoded(a_photograph(640, 480), "jpeg")
    recipe = Recipe()
    here = process_image(data, recipe, Limits())
    (there,) = workers.run(process_image, [Job("a", lambda: data, (recipe, Limits()))])
    assert there.error is None
    assert [one.sha256 for one in there.value.variants] == [one.sha256 for one in here.variants]


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        (tasks.die, ("segfault",), Reason.crashed_decoder),
        (tasks.die, ("kill",), Reason.crashed_decoder),
        (tasks.hog, (2000,), Reason.out_of_memory),
    ],
)
def test_limits_and_verdicts_are_those_of_one_machine(workers, function, arguments, reason):
    found = outcomes(workers, function, [job(1, *arguments)])
    assert isinstance(found[1].error, Rejected)
    assert found[1].error.reason == reason
    assert outcomes(workers, tasks.size, [job(2)])[2].value == 2


@pytest.mark.faults
def test_an_image_that_takes_too_long(dask):
    with ClusterWorkers(rules(dask, seconds=1.0)) as impatient:
        found = outcomes(impatient, tasks.hang, [job(1, True), job(2, False)])
    assert found[1].error.reason == Reason.timeout
    assert found[2].value == 2


def test_what_cannot_be_loaded_is_no_loss_of_the_others(workers):
    def broken():
        raise OSError("the network")

    found = outcomes(workers, tasks.size, [Job(1, broken), job(2)])
    assert isinstance(found[1].error, OSError)
    assert found[2].value == 2


@pytest.mark.faults
def test_a_worker_that_is_killed_costs_a_second_try_and_nothing_else(own_dask, tmp_path):
    """The first image to start kills the Dask worker it is on, from below."""
    flag = tmp_path / "flag"
    with ClusterWorkers(rules(own_dask)) as workers:
        jobs = (Job(n, lambda n=n: bytes(n), (str(flag),)) for n in range(12))
        found = outcomes(workers, kill_dask_worker_once, jobs)
    assert flag.exists()
    assert {key: outcome.value for key, outcome in found.items()} == {n: n for n in range(12)}
    ended = [process for process in own_dask.workers if process.poll() is not None]
    assert len(ended) == 1


def kill_dask_worker_once(data, flag):
    """Kill the Dask worker above this process: the leader of its session."""
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return len(data)
    os.kill(os.getsid(0), signal.SIGKILL)
    return len(data)


@pytest.mark.faults
def test_an_image_that_loses_every_worker_is_our_failure_not_its_fault(
    own_dask, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster, "MAX_LOSSES", 1)
    with ClusterWorkers(rules(own_dask)) as workers:
        found = outcomes(workers, kill_dask_worker, [Job(1, lambda: b"x")])
    assert isinstance(found[1].error, WorkerError)


def kill_dask_worker(data):
    os.kill(os.getsid(0), signal.SIGKILL)


def test_workers_that_join_are_used(own_dask):
    for process in own_dask.workers:
        end(process, signal.SIGTERM)
    with ClusterWorkers(rules(own_dask)) as workers:
        workers.start()
        own_dask.add_worker()
        assert outcomes(workers, tasks.size, [job(3)])[3].value == 3


@pytest.mark.faults
def test_a_scheduler_that_goes_away_is_named(own_dask, monkeypatch):
    monkeypatch.setattr(cluster, "STUCK_SECONDS", 0.0)
    with ClusterWorkers(rules(own_dask, seconds=2.0)) as workers:
        running = workers.run(tasks.hang, [job(1, False), *(job(n, True) for n in range(2, 9))])
        assert next(running).value == 1
        own_dask.end_scheduler()
        with pytest.raises(WorkerError):
            list(running)


def test_nobody_at_the_address(monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.3)
    settings = Workers(cluster="tcp://127.0.0.1:9")
    with pytest.raises(WorkerError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        ClusterWorkers(settings).start()


def test_a_cluster_without_workers_says_how_to_start_one(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "FIRST_WORKER_SECONDS", 0.3)
    with (
        DaskCluster(tmp_path / "dask", workers=0) as dask,
        ClusterWorkers(rules(dask)) as workers,
        pytest.raises(WorkerError, match="dask worker tcp://"),
    ):
        outcomes(workers, tasks.size, [job(1)])


def test_a_worker_with_other_encoders_does_not_work_for_us(workers, monkeypatch):
    monkeypatch.setattr(cluster, "what_renders", lambda: "version 0")
    found = outcomes(workers, tasks.size, [job(1)])
    assert isinstance(found[1].error, WorkerError)
    assert "version 0" in str(found[1].error)


def test_leaving_early_stops_what_is_under_way(workers):
    running = workers.run(tasks.size, map(job, range(50)))
    next(running)
    running.close()
    assert outcomes(workers, tasks.size, [job(7)])[7].value == 7


def test_jobs_are_taken_only_as_fast_as_they_are_done(workers):
    taken = []

    def jobs():
        for n in range(40):
            taken.append(n)
            yield job(n)

    running = workers.run(tasks.size, jobs())
    next(running)
    assert len(taken) <= cluster.IN_FLIGHT * 2 + 1
    running.close()
