"""Which URLs may be asked for, what an answer means, and how fast requests may start."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.delivery.warming import (
    Answer,
    ForbiddenUrlError,
    Pace,
    cache_state,
    check_url,
    edge_of,
    is_passing,
    is_public,
    wait_before,
)

EDGES = {edge_of("https://cdn.example.com"), edge_of("http://edge.test:8080/photos/")}


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example.com/variants/a.avif",
        "https://CDN.example.com/x?Expires=1&Signature=abc",
        "https://cdn.example.com:443/x",
        "http://edge.test:8080/other/folder",
    ],
)
def test_urls_of_the_edge_are_allowed(url):
    check_url(url, EDGES)


@pytest.mark.parametrize(
    "url",
    [
        "http://cdn.example.com/x",  # another scheme, another port
        "https://cdn.example.com:8443/x",
        "https://cdn.example.com.evil.test/x",
        "https://evil.test/cdn.example.com/x",
        "https://cdn.example.com@evil.test/x",
        "https://user:word@cdn.example.com/x",
        "http://edge.test/x",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "gopher://cdn.example.com/x",
        "//cdn.example.com/x",
        "/variants/a.avif",
        "https://cdn.example.com:99999/x",
        "",
    ],
)
def test_every_other_url_is_refused(url):
    with pytest.raises(ForbiddenUrlError):
        check_url(url, EDGES)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://cdn.example.com/x?Signature=abc",
        "https://cdn.example.com:99999/x?Signature=abc",
        "https://evil.test/x?Signature=abc",
        "https://user@cdn.example.com/x?Signature=abc",
    ],
)
def test_no_message_repeats_a_signature(url):
    with pytest.raises(ForbiddenUrlError) as caught:
        check_url(url, EDGES)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8"])
def test_public_addresses(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1",
        "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1", "2002:7f00:1::", "localhost", "",
    ],
)  # fmt: skip
def test_addresses_that_only_this_machine_or_network_sees(address):
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_no_more_public_inside_an_ipv6_address(address):
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    translated = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(address))
    assert is_public(str(mapped)) == is_public(str(translated)) == is_public(str(address))


@pytest.mark.parametrize(
    ("headers", "state"),
    [
        ({"x-cache": "Hit from cloudfront"}, "hit"),
        ({"x-cache": "RefreshHit from cloudfront"}, "hit"),
        ({"x-cache": "Miss from cloudfront"}, "miss"),
        ({"x-cache": "MISS, HIT"}, "hit"),
        ({"x-cache": "HIT, MISS"}, "miss"),
        ({"x-cache": "EXPIRED"}, "miss"),
        ({"x-cache": "STALE"}, "hit"),
        ({"cf-cache-status": "DYNAMIC"}, "miss"),
        ({"cf-cache-status": "REVALIDATED"}, "hit"),
        ({"cf-cache-status": "MISS", "age": "10"}, "miss"),
        ({"age": "7"}, "hit"),
        ({"age": "0"}, "miss"),
        ({"age": "soon"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_what_headers_say_of_the_cache(headers, state):
    assert cache_state(headers) == state


def test_only_a_whole_200_is_warm():
    assert Answer(200, "miss", 0.1, 20, 1).warm
    assert not Answer(200, "hit", 0.1, 20, 1, "the body broke off").warm
    assert not Answer(301, "hit", 0.1, 0, 1, "HTTP 301").warm


def test_what_may_be_better_in_a_moment():
    assert [status for status in (0, 200, 301, 403, 404, 429, 500, 503) if is_passing(status)] == [
        0, 429, 500, 503,
    ]  # fmt: skip
    assert [wait_before(attempt) for attempt in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]


@given(
    st.floats(1, 100),
    st.lists(st.floats(0, 2), min_size=1, max_size=30),
)
def test_requests_never_start_faster_than_the_pace(per_second, pauses):
    """In any stretch of time there are at most as many as the pace, one, and a short burst."""
    pace, now, taken = Pace(per_second), 0.0, []
    for pause in pauses:
        now += pause
        while pace.take(now):
            taken.append(now)
    burst = max(1.0, per_second * 0.05)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= per_second * (taken[last] - start) + burst + 1e-6 * last + 1


def test_the_pace_is_kept_up():
    pace, now, taken = Pace(100), 0.0, 0
    while now < 10:
        taken += pace.take(now)
        now += 0.002
    assert 990 <= taken <= 1001


def test_the_wait_is_long_enough():
    pace = Pace(4)
    assert pace.take(10.0)
    assert not pace.take(10.0)
    assert pace.wait() == pytest.approx(0.25)
    assert not pace.take(10.0 + 0.249)
    assert pace.take(10.0 + 0.2501)
