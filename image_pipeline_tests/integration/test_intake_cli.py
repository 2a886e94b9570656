"""``image-pipeline intake`` as it is started: the service as a process, keys, the bucket's rule."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
import yaml
from click.testing import CliRunner

from image_pipeline.cli.intake import intake
from image_pipeline.commands.intake import rehearse
from image_pipeline.store.cors import RULE, cors, put_cors
from image_pipeline_tests.ports import free_port
from image_pipeline_tests.unit.stages.helpers import make_settings

SERVE = "from image_pipeline.cli.intake import intake; intake()"


def write(folder, **settings):
    config = folder / "pipeline.yaml"
    config.write_text(yaml.safe_dump(settings))
    return str(config)


@contextmanager
def serving(config, port):
    """The process of the service, once it answers."""
    command = [sys.executable, "-c", SERVE, "serve", "--port", str(port), "--config", config]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
                break
            except httpx.TransportError:
                assert process.poll() is None, process.stdout.read().decode()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_service_runs_and_ends(tmp_path):
    """With the embedded bucket, which it starts; a stream that is open does not hold it up."""
    port = free_port()
    config = write(
        tmp_path,
        bucket={"endpoint_url": "embedded"},
        intake={"sources": {"photos": {"anonymous": True}}},
    )
    file = {"name": "a.jpg", "size": 5, "type": "image/jpeg"}
    with (
        serving(config, port) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        answer = client.post("/uploads", json={"source": "photos", "files": [file]})
        (allowed,) = answer.raise_for_status().json()["files"]
        # The page of the service itself may upload: the bucket has the rule.
        asked = httpx.options(
            allowed["post"]["url"],
            headers={
                "Origin": f"http://127.0.0.1:{port}",
                "Access-Control-Request-Method": "POST",
            },
            trust_env=False,
        )
        assert asked.headers["Access-Control-Allow-Origin"] in (f"http://127.0.0.1:{port}", "*")
        sent = httpx.post(
            allowed["post"]["url"],
            data=allowed["post"]["fields"], files={"file": b"12345"}, trust_env=False,
        )  # fmt: skip
        assert sent.status_code == 204
        assert client.get(f"/uploads/{allowed['id']}").json()["received"] is True
        with client.stream("GET", f"/uploads/{allowed['id']}/events") as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("data: "))
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            assert list(lines) == [""], "the stream was ended, not cut off"
        assert b"Traceback" not in output, output.decode()
        # No id gets into a log.
        assert allowed["id"].encode() not in output


def test_the_rehearsal(bucket, catalog, tmp_path, capsys):
    settings = make_settings(
        bucket=bucket.settings,
        catalog={"url": catalog.url},
        workers={"spool": tmp_path / "spool", "processes": 1},
    )
    assert rehearse(settings, None, bucket) == 0
    printed = capsys.readouterr().out
    assert printed.count("published") == 3
    assert "too_large" in printed
    assert printed.count("http") == 3, "each has its manifest"


def test_it_says_that_it_is_off(tmp_path):
    done = CliRunner().invoke(intake, ["serve", "--config", write(tmp_path)])
    assert done.exit_code == 1
    assert "intake.sources" in done.output


def test_a_key_and_the_line_that_lets_it_in(tmp_path):
    done = CliRunner().invoke(intake, ["key", "web_shop"])
    key = done.stdout.strip()
    line = re.search(r"web_shop: ([0-9a-f]{64})", done.stderr)
    assert hashlib.sha256(key.encode()).hexdigest() == line[1]
    assert key not in done.stderr
    assert CliRunner().invoke(intake, ["key", "Web Shop"]).exit_code == 2


@pytest.mark.parametrize("apply", [False, True])
def test_the_rule_of_the_bucket(bucket, tmp_path, apply):
    theirs = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET"]}
    put_cors(bucket.client, bucket.name, [theirs])
    config = write(
        tmp_path,
        bucket={"name": bucket.name, "endpoint_url": bucket.settings.endpoint_url},
        intake={
            "sources": {"photos": {"anonymous": True}}, "origins": ["https://shop.example"],
        },
    )  # fmt: skip
    options = ["cors", "--config", config, "--origin", "https://upload.example", "--json"]
    done = CliRunner().invoke(intake, [*options, "--apply"] if apply else options)
    told = json.loads(done.stdout)
    assert (told["changed"], told["applied"]) == (True, apply)
    ours = next(rule for rule in told["rules"] if rule.get("ID") == RULE)
    assert ours["AllowedOrigins"] == ["https://shop.example", "https://upload.example"]
    methods = [rule["AllowedMethods"] for rule in cors(bucket.client, bucket.name)]
    assert methods == ([["POST", "PUT"], ["GET"]] if apply else [["GET"]])
    wrong = [*options[:3], "--origin", "upload.example/page"]
    assert CliRunner().invoke(intake, wrong).exit_code == 2
