"""Which server, and what of the bucket it gets. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from image_pipeline.settings import Mirror, Settings

#: What a batch commits shows up to so much later than the moment it is said to have ended at.
LATE = timedelta(minutes=10)

#: The trash is looked at so often.
PURGE_EVERY = timedelta(days=1)

#: Pauses between tries of one file: 0.5, 1, 2 ... seconds, enough for a server that restarts.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0


@dataclass(frozen=True, slots=True)
class Scope:
    """What is copied: of these sources, ``originals`` or not, and variants of these sizes."""

    sources: tuple[str, ...]
    originals: bool
    sizes: tuple[str, ...]

    @property
    def text(self) -> str:
        """What tells it from others: everything is looked at again when it changes."""
        originals = "originals" if self.originals else ""
        return "; ".join((",".join(self.sources), originals, ",".join(self.sizes)))


def scope_of(settings: Settings) -> Scope:
    """What the settings say is to be copied."""
    mirror = settings.mirror
    sources = mirror.sources or tuple(settings.sources)
    return Scope(tuple(sorted(sources)), mirror.originals, tuple(sorted(set(mirror.variants))))


def target_of(mirror: Mirror) -> str:
    """The server and the folder there, by which the catalog knows what they have."""
    # A path without a slash in front begins where the login does.
    folder = mirror.path if mirror.path.startswith("/") else f"/~/{mirror.path}"
    return f"sftp://{mirror.host}:{mirror.port}{folder.rstrip('/')}"


def pause(attempt: int) -> float:
    """Seconds before the next try of a file; ``attempt`` counts from 0."""
    return min(_FIRST_PAUSE * float(2**attempt), _LONGEST_PAUSE)


def retry_at(now: datetime, failures: int) -> datetime:
    """When to try a file again that failed so many times before, and again now.

    By the next run at first, then after 1, 2, 4 ... hours: what fails for a reason of its own
    should not be asked for by the hour. Once a day at least, so that nobody forgets it.
    """
    if not failures:
        return now
    return now + min(timedelta(hours=2 ** min(failures - 1, 5)), timedelta(days=1))


def is_purge_due(purged_at: datetime | None, now: datetime) -> bool:
    """Whether the trash is to be looked at."""
    return purged_at is None or now - purged_at >= PURGE_EVERY


def day_of(moment: datetime) -> str:
    """The name of a day's trash."""
    return f"{moment:%Y-%m-%d}"
