"""What must be in the bucket, told from the words of the issue and not by asking housekeeping.

An object is alive if one of these leads to it: an upload that the catalog knows in that version,
a manifest that is published and every file it names, a row of a published file, a batch that
the catalog knows, the index of a source and every page it names, or that it is not ours.
"""

import json
import re

import sqlalchemy as sa

from image_pipeline.catalog.batches import OPEN

_FILE = re.compile(r"variants/[0-9a-f]{64}/[a-z0-9_.-]+")
_PAGE = re.compile(r"indexes/[a-z0-9_]+/[0-9]+\.[0-9a-f]+\.json")


class Alive:
    """Reads catalog and bucket of a :class:`~.miniature.World` as they are, past every hook."""

    def __init__(self, world):
        self.world = world
        self.objects = world.bucket.objects

    def must_exist(self):
        """Every key that something leads to, and what leads there; those put behind it left out.

        Broader than :meth:`wanted`: what may go only once nobody uses it is in here as long as
        its row says that it is there.
        """
        found = dict.fromkeys(self.world.foreign, "foreign")
        with self.world.catalog.engine.connect() as connection:
            found |= self._uploads(connection)
            found |= dict.fromkeys(
                _column(connection, "SELECT key FROM variants WHERE NOT dropped"),
                "a row of variants",
            )
            found |= self._published(connection)
            found |= self._batches(connection)
        found |= self._indexes()
        return {key: why for key, why in found.items() if key not in self.world.lost}

    def wanted(self):
        """Every key that may be left when nothing runs and everything old is gone."""
        found = dict.fromkeys(self.world.foreign, "foreign")
        with self.world.catalog.engine.connect() as connection:
            found |= self._uploads(connection)
            found |= dict.fromkeys(
                _column(
                    connection,
                    "SELECT key FROM variants v WHERE NOT dropped AND EXISTS (SELECT 1 FROM"
                    " publications p WHERE p.canonical_id = v.image_id AND p.recipe = v.recipe)",
                ),
                "published",
            )
            found |= self._published(connection)
            found |= self._batches(connection)
        return found | self._indexes()

    def open_batches(self):
        with self.world.catalog.engine.connect() as connection:
            query = sa.text("SELECT id FROM batches WHERE state IN :states")
            states = sa.bindparam("states", list(OPEN), expanding=True)
            return list(connection.execute(query.bindparams(states)).scalars())

    def _uploads(self, connection):
        """Originals that were discovered as they are now."""
        rows = connection.execute(sa.text("SELECT key, etag FROM uploads")).tuples().all()
        versions = {key: self.world.etag_of_truth(key) for key, _ in rows}
        return {key: "an upload" for key, etag in rows if versions[key] == etag}

    def _published(self, connection):
        """Manifests of images that are published, and the files they name."""
        rows = connection.execute(sa.text("SELECT source, image_id FROM publications"))
        found = {}
        for source, image in rows.tuples().all():
            key = f"manifests/{source}/{image}.json"
            if key in self.world.truth:
                found[key] = "a publication"
                named = _FILE.findall(self.world.truth[key].decode())
                found |= dict.fromkeys(named, f"named by {key}")
        return found

    def _batches(self, connection):
        """What was written of batches that are known."""
        found = {}
        for batch in _column(connection, "SELECT id FROM batches"):
            names = (
                f"batches/{batch}.json",
                f"manifests/batches/{batch}.json",
                f"manifests/warm/{batch}.json",
                f"manifests/deltas/{batch}.json",
                f"galleries/{batch}.html",
            )
            found |= {key: f"batch {batch}" for key in names if key in self.world.truth}
        return found

    def _indexes(self):
        """The index of each source, its pages, and its gallery."""
        found = {}
        for key in [*self.world.truth]:
            if re.fullmatch(r"indexes/[a-z0-9_]+/index\.json", key):
                found[key] = "an index"
                text = json.dumps(json.loads(self.world.truth[key]))
                found |= dict.fromkeys(_PAGE.findall(text), f"named by {key}")
            elif key.startswith("galleries/sources/"):
                found[key] = "a gallery"
        return found


def _column(connection, query):
    return list(connection.execute(sa.text(query)).scalars())


def check(world):
    """Everything that must be there is, with the right bytes; the trash is never the only place."""
    wrong = []
    for key, why in Alive(world).must_exist().items():
        stored = world.bucket.objects.get(key)
        if stored is None:
            trash = [other for other in world.bucket.objects if other.endswith(f"/{key}")]
            wrong.append(f"{key} ({why}) is gone{', it is only in the trash' if trash else ''}")
        elif stored.data != world.truth.get(key):
            wrong.append(f"{key} ({why}) has other bytes")
    assert not wrong, "\n".join(wrong)
