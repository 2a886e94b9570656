"""deploy/ui.conf.template in a real nginx, before a real web server of Dagster."""

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from image_pipeline_tests.edge import NGINX
from image_pipeline_tests.ports import free_port

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: nginx-light)"),
    pytest.mark.xdist_group("ui-proxy"),
]

TEMPLATE = Path(__file__).parents[2] / "deploy" / "ui.conf.template"
LOGIN = {"Authorization": "Basic " + base64.b64encode(b"eve:secret").decode()}
JSON = {"Content-Type": "application/json"}
QUERY = json.dumps({"query": "{ version }"})
MUTATION = json.dumps({"query": "mutation { setNuxSeen }"})


def wait_for(port, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(port)


@pytest.fixture(scope="module")
def webserver(tmp_path_factory):
    """An empty instance and a web server that only shows it."""
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (home / "defs.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "dagster_webserver", "--host", "127.0.0.1", "--port", str(port),
            "--read-only", "-f", str(home / "defs.py"),
        ],
        cwd=home, env={**os.environ, "DAGSTER_HOME": str(home)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(port, process)
    yield port
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def proxy(webserver, tmp_path_factory):
    folder = tmp_path_factory.mktemp("proxy")
    port = free_port()
    hashed = subprocess.run(
        [shutil.which("openssl"), "passwd", "-apr1", "secret"], capture_output=True, check=True
    )
    (folder / "passwords").write_text(f"eve:{hashed.stdout.decode()}")
    # The workers of an nginx that was started by root are not root.
    (folder / "passwords").chmod(0o644)
    folder.chmod(0o755)
    values = {
        "HOST": f"ui.example.com:{port}", "LISTEN": f"127.0.0.1:{port}",
        "PASSWORDS": str(folder / "passwords"), "UPSTREAM": f"http://127.0.0.1:{webserver}",
    }  # fmt: skip
    text = TEMPLATE.read_text()
    for name, value in values.items():
        # A name of a server has no port; an origin has.
        plain = text.replace(f"server_name ${{{name}}}", f"server_name {value.partition(':')[0]}")
        text = plain.replace(f"${{{name}}}", value)
    paths = "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in (
        "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))  # fmt: skip
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;"
        f" events {{}} http {{ access_log off; {paths}{text} }}"
    )
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(port, process)
    yield port
    process.terminate()
    process.wait(10)


def ask(port, method="POST", path="/graphql", body=QUERY, host=None, **headers):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(
        method, path, body if method == "POST" else None,
        {"Host": host or f"ui.example.com:{port}", **named},
    )  # fmt: skip
    answer = connection.getresponse()
    data = answer.read()
    found = answer.status, dict(answer.getheaders()), data
    connection.close()
    return found


def test_its_own_pages_work(proxy):
    status, headers, body = ask(proxy, "GET", "/", **LOGIN)
    assert (status, b"<html" in body) == (200, True)
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    origin = f"http://ui.example.com:{proxy}"
    status, _, body = ask(proxy, **LOGIN, **JSON, Origin=origin, Sec_Fetch_Site="same-origin")
    assert status == 200
    assert json.loads(body)["data"]["version"]


def test_the_live_connection_of_its_pages_works(proxy):
    status, headers, _ = ask(
        proxy, "GET", **LOGIN, Connection="Upgrade", Upgrade="websocket",
        Sec_WebSocket_Version="13", Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        Sec_WebSocket_Protocol="graphql-ws",
    )  # fmt: skip
    assert status == 101
    assert headers["Upgrade"].lower() == "websocket"


@pytest.mark.parametrize("path", ["/", "/graphql", "/server_info"])
def test_nothing_is_shown_without_a_login(proxy, path):
    assert ask(proxy, "GET" if path != "/graphql" else "POST", path, **JSON)[0] == 401


@pytest.mark.parametrize(
    ("status", "method", "path", "headers"),
    [
        # A link or an image somewhere else.
        (405, "GET", "/graphql?query=mutation%20%7B%20setNuxSeen%20%7D", {}),
        # A form somewhere else: these types need no permission of the browser.
        (405, "POST", "/graphql", {"Content-Type": "text/plain"}),
        (405, "POST", "/graphql", {"Content-Type": "application/x-www-form-urlencoded"}),
        (405, "POST", "/graphql", {"Content-Type": "multipart/form-data; boundary=x"}),
        (405, "PUT", "/graphql", JSON),
        # A script somewhere else.
        (403, "POST", "/graphql", {**JSON, "Origin": "https://evil.example.com"}),
        (403, "POST", "/graphql", {**JSON, "Origin": "null"}),
        (403, "POST", "/graphql", {**JSON, "Sec-Fetch-Site": "cross-site"}),
        (403, "POST", "/", JSON),
        (403, "POST", "/report_asset_materialization/a", JSON),
    ],
)  # fmt: skip
def test_what_its_own_pages_never_send_is_refused(proxy, status, method, path, headers):
    assert ask(proxy, method, path, MUTATION, **LOGIN, **headers)[0] == status


def test_another_name_is_not_answered(proxy):
    status, _, _ = ask(proxy, "GET", "/", host="rebound.example.com", **LOGIN)
    assert status == 421


def test_viewers_cannot_start_anything(proxy):
    """The web server behind it was started with --read-only."""
    launch = (
        'mutation { launchRun(executionParams: {selector: {repositoryLocationName: "a",'
        ' repositoryName: "b", jobName: "c"}, runConfigData: {}}) { __typename } }'
    )
    status, _, body = ask(proxy, body=json.dumps({"query": launch}), **LOGIN, **JSON)
    assert status == 200
    assert json.loads(body)["data"]["launchRun"]["__typename"] == "UnauthorizedError"
