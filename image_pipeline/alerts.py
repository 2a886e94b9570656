"""Telling people that a run failed: a webhook, Slack, e-mail, whichever the settings name.

Each way is tried by itself; one that is broken keeps no other from working.
"""

from __future__ import annotations

import json
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from typing import Any

from image_pipeline.settings import AlertSettings, Email

#: Tries of each way, and the seconds before the second; doubled before each further one.
ATTEMPTS = 3
FIRST_PAUSE = 1.0
_TIMEOUT = 10.0

#: Characters of an error that are told: the run's page has the rest.
_MESSAGE_LENGTH = 1500


@dataclass(frozen=True, slots=True)
class Alert:
    """A failed run. ``batch`` and ``url`` (of the run's page) are empty where there is none."""

    job: str
    run_id: str
    batch: str
    message: str
    url: str

    @property
    def title(self) -> str:
        """One line: what failed."""
        return f"{self.job} failed: {self.batch}" if self.batch else f"{self.job} failed"


def webhook_payload(alert: Alert) -> dict[str, Any]:
    """What a webhook gets: the fields as they are."""
    return {"event": "run_failed", "title": alert.title, **asdict(_shortened(alert))}


def slack_payload(alert: Alert) -> dict[str, Any]:
    """What an incoming webhook of Slack gets. Three characters are its markup; they are escaped."""
    alert = _shortened(alert)
    where = f"\n<{alert.url}|run {alert.run_id[:8]}>" if alert.url else f"\nrun {alert.run_id}"
    # A code fence in the message would end ours.
    message = _slack_text(alert.message).replace("```", "'''")
    return {"text": f"*{_slack_text(alert.title)}*\n```{message}```{where}"}


def email_message(alert: Alert, email: Email) -> EmailMessage:
    """The mail. Line breaks in a title would be headers of their own; they are taken out."""
    alert = _shortened(alert)
    message = EmailMessage()
    message["Subject"] = " ".join(f"[image-pipeline] {alert.title}".split())
    message["From"] = email.sender
    message["To"] = ", ".join(email.to)
    message.set_content(f"{alert.message}\n\nRun {alert.run_id}\n{alert.url}\n")
    return message


def send(
    alert: Alert, settings: AlertSettings, sleep: Callable[[float], None] = time.sleep
) -> dict[str, str]:
    """Send an alert every way that is configured; the ways that failed, with the reason."""
    ways: dict[str, Callable[[], None]] = {}
    if settings.webhook:
        hook = settings.webhook.get_secret_value()
        ways["webhook"] = lambda: _post(hook, webhook_payload(alert))
    if settings.slack:
        slack = settings.slack.get_secret_value()
        ways["slack"] = lambda: _post(slack, slack_payload(alert))
    if settings.email:
        email = settings.email
        ways["email"] = lambda: _mail(email_message(alert, email), email)
    failed = {name: _persistently(way, sleep) for name, way in ways.items()}
    return {name: reason for name, reason in failed.items() if reason}


def _persistently(way: Callable[[], None], sleep: Callable[[float], None]) -> str:
    """Try a few times; the last error in words, without the address, which is a secret."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        try:
            way()
        except (OSError, smtplib.SMTPException) as error:
            code = getattr(error, "code", None) or getattr(error, "smtp_code", None)
            reason = f"{type(error).__name__}{f' {code}' if code else ''}"
        else:
            return ""
    return reason


def _post(url: str, payload: Mapping[str, Any]) -> None:
    request = urllib.request.Request(  # noqa: S310 - settings allow http and https only
        url, json.dumps(payload).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
        answer.read()


def _mail(message: EmailMessage, email: Email) -> None:
    with smtplib.SMTP(email.host, email.port, timeout=_TIMEOUT) as server:
        if email.starttls:
            server.starttls(context=ssl.create_default_context())
        if email.username and email.password:
            server.login(email.username, email.password.get_secret_value())
        server.send_message(message)


def _shortened(alert: Alert) -> Alert:
    text = alert.message
    cut = text if len(text) <= _MESSAGE_LENGTH else f"{text[: _MESSAGE_LENGTH - 3]}..."
    return Alert(alert.job, alert.run_id, alert.batch, cut, alert.url)


def _slack_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
