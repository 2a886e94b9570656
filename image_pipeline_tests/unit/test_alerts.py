"""Alerts, received by servers of our own."""

import json
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import SecretStr

from image_pipeline.alerts import Alert, email_message, send, slack_payload, webhook_payload
from image_pipeline.settings import AlertSettings, Email, SettingsError, load_settings

ALERT = Alert(
    "process_batch", "0123456789ab", "photos-1", "It broke.", "http://ui/runs/0123456789ab"
)


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.received.append((self.path, json.loads(self.rfile.read(length))))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as it takes to receive one mail."""

    def handle(self):
        self.wfile.write(b"220 test\r\n")
        in_data = False
        for line in self.rfile:
            text = line.decode().rstrip("\r\n")
            self.server.received.append(text)
            if in_data:
                in_data = text != "."
                if not in_data:
                    self.wfile.write(b"250 taken\r\n")
            elif text.upper() == "DATA":
                in_data = True
                self.wfile.write(b"354 go on\r\n")
            elif text.upper() == "QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 fine\r\n")


def serve(kind, handler):
    server = kind(("127.0.0.1", 0), handler)
    server.received, server.answers = [], []
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    return server


@pytest.fixture
def hook():
    server = serve(HTTPServer, Hook)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def mail():
    server = serve(socketserver.TCPServer, Mail)
    yield server
    server.shutdown()
    server.server_close()


def url(server, path):
    return SecretStr(f"http://127.0.0.1:{server.server_address[1]}{path}")


def email(port):
    return Email(
        host="127.0.0.1", port=port, starttls=False, sender="a@example.com", to=("b@example.com",)
    )


def test_every_way_that_is_configured_is_used(hook, mail):
    settings = AlertSettings(
        webhook=url(hook, "/hook"), slack=url(hook, "/slack"), email=email(mail.server_address[1])
    )
    assert send(ALERT, settings) == {}
    assert hook.received[0] == (
        "/hook",
        {
            "event": "run_failed", "title": "process_batch failed: photos-1",
            "job": "process_batch", "run_id": "0123456789ab", "batch": "photos-1",
            "message": "It broke.", "url": "http://ui/runs/0123456789ab",
        },
    )  # fmt: skip
    assert hook.received[1][0] == "/slack"
    assert "Subject: [image-pipeline] process_batch failed: photos-1" in mail.received
    assert "rcpt to:<b@example.com>" in [line.lower() for line in mail.received]


def test_nobody_is_told_by_default():
    assert not AlertSettings().any
    assert send(ALERT, AlertSettings()) == {}


def test_a_broken_way_keeps_no_other_from_working_and_tells_no_secret(hook):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/T0/secret"
        pauses = []
        settings = AlertSettings(webhook=SecretStr(nobody), slack=url(hook, "/slack"))
        failed = send(ALERT, settings, pauses.append)
    assert list(failed) == ["webhook"]
    assert "secret" not in failed["webhook"]
    assert pauses == [1.0, 2.0]
    assert [path for path, _ in hook.received] == ["/slack"]


def test_a_passing_error_is_waited_out(hook):
    hook.answers = [503, 429]
    assert send(ALERT, AlertSettings(webhook=url(hook, "/")), lambda _: None) == {}
    assert len(hook.received) == 3


def test_an_answer_that_stays_an_error_is_reported(hook):
    hook.answers = [404, 404, 404]
    failed = send(ALERT, AlertSettings(webhook=url(hook, "/")), lambda _: None)
    assert failed == {"webhook": "HTTPError 404"}


def test_slack_gets_text_and_no_markup():
    hostile = Alert("job", "r" * 12, "", "<!channel> ```*bold*``` & more", "")
    text = slack_payload(hostile)["text"]
    assert "&lt;!channel&gt;" in text
    assert "&amp; more" in text
    assert text.count("```") == 2
    assert "<http://ui/runs/0123456789ab|run 01234567>" in slack_payload(ALERT)["text"]


def test_a_name_cannot_add_a_header_to_the_mail():
    hostile = Alert("job", "r", "photos\r\nBcc: all@example.com", "x", "")
    message = email_message(hostile, email(25))
    assert message["Bcc"] is None
    assert message["Subject"] == "[image-pipeline] job failed: photos Bcc: all@example.com"


def test_long_errors_are_cut():
    long = Alert("job", "r", "", "x" * 10_000, "")
    assert len(webhook_payload(long)["message"]) == 1500
    assert webhook_payload(long)["message"].endswith("...")


@pytest.mark.parametrize("field", ["webhook", "slack"])
def test_addresses_are_secrets(tmp_path, monkeypatch, field):
    path = tmp_path / "pipeline.yaml"
    path.write_text(f"alerts: {{{field}: 'https://hooks.example.com/x'}}")
    with pytest.raises(SettingsError, match=f"IMAGE_PIPELINE_ALERTS__{field.upper()}"):
        load_settings(path)
    path.write_text("{}")
    name = f"IMAGE_PIPELINE_ALERTS__{field.upper()}"
    monkeypatch.setenv(name, "https://hooks.example.com/x")
    settings = load_settings(path)
    assert settings.alerts.any
    assert "hooks.example.com" not in repr(settings)
    monkeypatch.setenv(name, "file:///etc/passwd")
    with pytest.raises(SettingsError, match="https"):
        load_settings(path)
