"""The warmer against a real caching server in front of a real bucket."""

import secrets
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from image_pipeline.catalog import images as catalog_images
from image_pipeline.catalog import warmth as catalog_warmth
from image_pipeline.catalog.images import Member
from image_pipeline.catalog.schema import warmth
from image_pipeline.catalog.warmth import Wanted
from image_pipeline.delivery.warmer import Warmer
from image_pipeline.embedded import EmbeddedS3
from image_pipeline.settings import BucketSettings, Delivery, Settings, Signing, Source, Warming
from image_pipeline.stages.tools import Spool, Tools
from image_pipeline.stages.warming import COMMIT_EVERY, warm_sources
from image_pipeline.store.bucket import Bucket
from image_pipeline.store.layout import IMMUTABLE
from image_pipeline_tests.edge import NGINX, Edge
from image_pipeline_tests.unit.catalog.helpers import image_row

pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed: apt-get install nginx-light"
)

FILES = 120
RULES = Warming(allow_private_addresses=True, per_second=10_000, attempts=2, concurrency=8)


@pytest.fixture
def edge(bucket, tmp_path):
    with Edge(tmp_path / "edge", bucket.endpoint_url, bucket.name) as running:
        yield running


def put(bucket, count=FILES):
    keys = [f"variants/{number:04}.jpg" for number in range(count)]
    for number, key in enumerate(keys):
        bucket.put(key, secrets.token_bytes(200 + number), "image/jpeg", IMMUTABLE)
    return keys


def warm(rules, base, targets, authorities=None):
    with Warmer(rules, [base], authorities) as warmer:
        return dict(warmer.warm(targets))


def warm_keys(edge, keys, rules=RULES):
    targets = [(key, f"{edge.url}/{key}") for key in keys]
    return warm(rules, edge.url, targets, edge.authorities)


class TestWarmer:
    def test_the_first_pass_misses_and_the_second_hits(self, bucket, edge):
        keys = put(bucket)
        first, second = warm_keys(edge, keys), warm_keys(edge, keys)
        assert {answer.cache for answer in first.values()} == {"miss"}
        hits = sum(answer.cache == "hit" for answer in second.values())
        assert hits >= 0.99 * FILES
        assert [second[key].bytes for key in keys] == [200 + n for n in range(FILES)]
        assert all(answer.warm and answer.attempts == 1 for answer in second.values())

    def test_what_is_warm_is_served_without_the_origin(self, tmp_path, monkeypatch):
        with EmbeddedS3(tmp_path / "s3") as server:
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            bucket = Bucket(BucketSettings(name="origin", endpoint_url=server.endpoint_url))
            bucket.create_if_missing()
            keys = put(bucket, 10)
            with Edge(tmp_path / "edge", server.endpoint_url, "origin") as edge:
                warm_keys(edge, keys)
                server.stop()
                answers = warm_keys(edge, [*keys, "variants/never-asked.jpg"])
            bucket.client.close()
        assert [answers[key].cache for key in keys] == ["hit"] * 10
        assert not answers["variants/never-asked.jpg"].warm

    def test_a_file_that_is_not_there_is_no_warm_one(self, bucket, edge):
        (answer,) = warm_keys(edge, ["variants/missing.jpg"]).values()
        assert (answer.status, answer.error, answer.attempts) == (404, "HTTP 404", 1)

    def test_what_may_pass_is_tried_again(self, edge):
        (answer,) = warm_keys(edge, ["broken"]).values()
        assert (answer.status, answer.attempts) == (503, RULES.attempts)

    def test_redirects_are_not_followed(self, edge):
        (answer,) = warm_keys(edge, ["elsewhere"]).values()
        assert (answer.status, answer.error, answer.warm) == (302, "HTTP 302", False)

    def test_a_private_address_is_not_connected_to(self, edge):
        rules = RULES.model_copy(update={"allow_private_addresses": False})
        name = edge.url.replace("127.0.0.1", "localhost")
        for base in (edge.url, name):
            (answer,) = warm(rules, base, [("a", f"{base}/elsewhere")]).values()
            assert "is not a public address" in answer.error
            assert (answer.status, answer.attempts) == (0, 1)

    def test_other_hosts_are_not_asked(self, edge):
        answers = warm(RULES, edge.url, [("a", "http://127.0.0.1:9/x"), ("b", "file:///etc/hosts")])
        assert {answer.attempts for answer in answers.values()} == {0}
        assert not any(answer.warm for answer in answers.values())

    def test_credentials_are_not_sent_even_where_the_edge_is_spelled_with_some(self, edge):
        base = edge.url.replace("//", "//user:word@")
        (answer,) = warm(RULES, base, [("a", f"{base}/elsewhere")]).values()
        assert (answer.attempts, answer.error) == (0, "the URL carries credentials")

    def test_a_file_larger_than_allowed_is_given_up(self, bucket, edge):
        bucket.put("variants/large.jpg", bytes(300_000), "image/jpeg", IMMUTABLE)
        rules = RULES.model_copy(update={"max_megabytes": 0.1})
        (answer,) = warm_keys(edge, ["variants/large.jpg"], rules).values()
        assert not answer.warm
        assert answer.bytes <= 300_000

    def test_a_proxy_of_the_environment_is_not_used(self, bucket, edge, monkeypatch):
        (key,) = put(bucket, 1)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert warm_keys(edge, [key])[key].warm


class TestHttp2:
    """HTTP/2, where the edge offers it."""

    @pytest.fixture
    def edge(self, bucket, tmp_path):
        with Edge(tmp_path / "tls", bucket.endpoint_url, bucket.name, tls=True) as running:
            yield running

    def test_it_is_spoken_and_the_cache_works_as_ever(self, bucket, edge):
        keys = put(bucket)
        first, second = warm_keys(edge, keys), warm_keys(edge, keys)
        assert {answer.protocol for answer in (*first.values(), *second.values())} == {"2"}
        assert {answer.cache for answer in first.values()} == {"miss"}
        assert sum(answer.cache == "hit" for answer in second.values()) >= 0.99 * FILES
        assert [second[key].bytes for key in keys] == [200 + n for n in range(FILES)]

    def test_one_connection_carries_everything(self, bucket, edge, monkeypatch):
        keys, opened = put(bucket, 40), []
        made = socket.socket
        monkeypatch.setattr(socket, "socket", lambda *which: opened.append(1) or made(*which))
        assert all(answer.warm for answer in warm_keys(edge, keys).values())
        assert len(opened) == 1

    def test_a_certificate_that_is_not_trusted_is_no_edge(self, edge):
        rules = RULES.model_copy(update={"attempts": 1})
        (answer,) = warm(rules, edge.url, [("a", f"{edge.url}/broken")]).values()
        assert (answer.status, answer.protocol) == (0, "")
        assert "certificate" in answer.error.lower()

    def test_a_private_address_is_not_connected_to(self, edge):
        rules = RULES.model_copy(update={"allow_private_addresses": False})
        answers = warm_keys(edge, [f"broken?{number}" for number in range(20)], rules)
        assert all("is not a public address" in answer.error for answer in answers.values())

    def test_without_tls_it_is_http_1(self, bucket, tmp_path):
        with Edge(tmp_path / "plain", bucket.endpoint_url, bucket.name) as plain:
            (answer,) = warm_keys(plain, put(bucket, 1)).values()
        assert answer.protocol == "1.1"


def serve(*answers):
    """A server that says one answer to each who connects; its URL, and its thread."""
    listening = socket.create_server(("127.0.0.1", 0))

    def run():
        with listening:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}", thread


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 400_000 + b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"",
    ],
    ids=["cut", "headers", "nonsense", "nothing"],
)
def test_an_edge_that_is_not_well_warms_nothing(answer):
    url, thread = serve(answer)
    rules = RULES.model_copy(update={"attempts": 1, "timeout_seconds": 20})
    (found,) = warm(rules, url, [("a", f"{url}/a")]).values()
    thread.join(10)
    assert not found.warm
    assert found.error


@pytest.mark.parametrize(
    ("lines", "state"),
    [
        ("x-cAcHe:Hit from cloudfront", "hit"),
        ("X-Cache: Miss from cloudfront", "miss"),
        ("X-Cache: MISS\r\nX-Cache:  HIT ", "hit"),
        ("CF-Cache-Status: MISS\r\nAge: 7", "miss"),
        ("Age: 7", "hit"),
        ("Page: 7\r\nX-Cache-Control: hit\r\nMy-X-Cache: hit", "unknown"),
        ("Via: a: X-Cache: hit", "unknown"),
    ],
)
def test_headers_are_read_as_they_are_spelled(lines, state):
    url, thread = serve(f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\n\r\nok".encode())
    (found,) = warm(RULES, url, [("a", f"{url}/a")]).values()
    thread.join(10)
    assert (found.warm, found.cache, found.bytes) == (True, state, 2)


def test_an_answer_has_no_headers_of_the_one_before():
    url, thread = serve(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nX-Cache: HIT\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    )
    rules = RULES.model_copy(update={"concurrency": 1})
    found = warm(rules, url, [("a", f"{url}/a"), ("b", f"{url}/b")])
    thread.join(10)
    assert [found[key].cache for key in "ab"] == ["hit", "unknown"]


def test_a_target_is_taken_only_when_it_can_be_asked_for(bucket, edge):
    """A hundred thousand URLs must not be held at once."""
    keys, taken = put(bucket, 60), []

    def targets():
        for key in keys:
            taken.append(key)
            yield key, f"{edge.url}/{key}"

    with Warmer(RULES, [edge.url]) as warmer:
        answered = 0
        for _ in warmer.warm(targets()):
            answered += 1
            assert len(taken) <= answered + 2 * RULES.concurrency + 1
    assert answered == 60


class TestStage:
    NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

    @pytest.fixture
    def tools(self, bucket, catalog, edge, tmp_path):
        settings = Settings(
            sources={
                "photos": Source(prefix="uploads/photos/", base_url=edge.url),
                "products": Source(prefix="uploads/products/"),
            },
            delivery=Delivery(warming=RULES),
        )
        return Tools(settings, bucket, catalog, None, Spool(tmp_path), lambda: self.now)

    @pytest.fixture(autouse=True)
    def _begin(self):
        self.now = self.NOW

    def want(self, catalog, keys, image="i", number=1, first=0):
        """These are the files of an image now; its rank counts from ``first``."""
        wanted = [Wanted(key, image, rank) for rank, key in enumerate(keys, first)]
        with catalog.write() as connection:
            catalog_images.add_images(connection, [image_row(image)])
            member = Member("photos", image, image, None, 0, number)
            if not catalog_images.members_of(connection, "photos", [image]):
                catalog_images.add_members(connection, [member])
            catalog_warmth.replace(connection, "photos", [image], wanted, self.now)

    def test_asks_once_and_again_when_no_longer_fresh(self, bucket, catalog, tools):
        keys = put(bucket, 30)
        self.want(catalog, keys)
        first = warm_sources(tools, ["photos", "products"])
        assert (first.asked, first.misses, first.failures) == (30, 30, 0)
        assert first.without_edge == ["products"]
        assert warm_sources(tools, ["photos"]).asked == 0
        assert warm_sources(tools, ["photos"], force=True).asked == 0  # the clock stands still
        self.now += timedelta(hours=1)
        forced = warm_sources(tools, ["photos"], force=True)
        assert (forced.asked, forced.hits) == (30, 30)
        self.now += timedelta(hours=24, seconds=1)
        assert warm_sources(tools, ["photos"]).asked == 30

    def test_failures_are_reported_and_due_again(self, bucket, catalog, tools):
        keys = put(bucket, 3)
        self.want(catalog, [*keys, "variants/missing.jpg"])
        found = warm_sources(tools, ["photos"])
        assert (found.asked, found.failures) == (4, 1)
        assert found.shown_failures[0]["key"] == "variants/missing.jpg"
        self.now += timedelta(hours=1)
        again = warm_sources(tools, ["photos"])
        assert (again.asked, again.failures) == (1, 1)

    def test_new_files_come_first_and_then_the_most_wanted(self, bucket, catalog, tools):
        old, (new,) = put(bucket, 5), ["variants/new.jpg"]
        bucket.put(new, b"new", "image/jpeg", IMMUTABLE)
        self.want(catalog, old)
        warm_sources(tools, ["photos"])
        self.now += timedelta(days=2)
        self.want(catalog, [new], "other", 2, first=99)
        with catalog.read() as connection:
            due = catalog_warmth.Due(tools.settings.base_url_of("photos"), self.now, self.now)
            order = catalog_warmth.next_due(connection, "photos", due, 100)
        assert order == [new, *old]

    def test_files_that_an_image_no_longer_has_are_forgotten(self, bucket, catalog, tools):
        keys = put(bucket, 4)
        self.want(catalog, keys)
        self.want(catalog, keys[2:])
        assert warm_sources(tools, ["photos"]).asked == 2

    def private(self, tools, edge, **signing):
        """The same tools for a private source at an edge that asks for signatures."""
        source = Source(prefix="uploads/photos/", base_url=f"{edge.url}/private", access="private")
        delivery = Delivery(warming=RULES, signing=Signing(**signing))
        update = {"sources": {"photos": source}, "delivery": delivery}
        return replace(tools, settings=tools.settings.model_copy(update=update))

    def test_urls_of_a_private_source_are_signed(self, bucket, catalog, tools, edge, caplog):
        caplog.set_level("DEBUG")
        keys = put(bucket, 10)
        self.want(catalog, [*keys, "variants/missing.jpg"])
        (answer,) = warm_keys(edge, [f"private/{keys[0]}"]).values()
        assert answer.status == 403
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        private = self.private(tools, edge, key_pair_id="K1", private_key=SecretStr(pem))
        found = warm_sources(private, ["photos"])
        assert (found.asked, found.misses, found.failures) == (11, 10, 1)
        assert found.shown_failures[0]["status"] == 404
        # The signature is no part of the cache key, so another one finds the same file.
        self.now += timedelta(hours=1)
        again = warm_sources(private, ["photos"], force=True)
        assert (again.hits, again.misses) == (10, 0)
        # And it is written down nowhere.
        with catalog.read() as connection:
            rows = connection.execute(sa.select(warmth)).all()
        kept = f"{found} {again} {rows} {caplog.text}"
        assert len(rows) == 11
        assert "Key-Pair-Id" not in kept
        assert "Expires=" not in kept

    def test_a_private_source_without_a_key_is_named(self, bucket, catalog, tools, edge):
        self.want(catalog, put(bucket, 1))
        found = warm_sources(self.private(tools, edge), ["photos"])
        assert found.asked == 0
        assert "key_pair_id" in found.unsigned["photos"]

    def test_progress_knows_how_much_there_is(self, bucket, catalog, tools):
        self.want(catalog, put(bucket, COMMIT_EVERY + 50))
        seen = []
        shown = replace(tools, progress=lambda *step: seen.append(step))
        warm_sources(shown, ["photos"])
        assert seen == [("warmed", COMMIT_EVERY, 250), ("warmed", 250, 250)]

    def test_another_edge_is_warmed_anew(self, bucket, catalog, tools, tmp_path):
        keys = put(bucket, 3)
        self.want(catalog, keys)
        warm_sources(tools, ["photos"])
        self.now += timedelta(minutes=1)
        with Edge(tmp_path / "other", bucket.endpoint_url, bucket.name) as other:
            sources = {"photos": Source(prefix="uploads/photos/", base_url=other.url)}
            settings = tools.settings.model_copy(update={"sources": sources})
            moved = Tools(settings, bucket, catalog, None, tools.spool, tools.clock)
            found = warm_sources(moved, ["photos"])
        assert (found.asked, found.misses) == (3, 3)
