"""Keys are compared by their digests, all of them, in constant time."""

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.intake import keys


def test_a_new_key_is_one_nobody_has():
    made = {keys.new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("ipk_") and len(key) == 4 + 43 for key in made)


def test_the_digest_is_sha256():
    # The test vector of FIPS 180-2, appendix B.1.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert keys.digest("abc") == expected


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), max_size=8), st.text())
def test_the_holder_of_a_key(people, stranger):
    known = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in people.items()}
    for key in people.values():
        assert people[keys.holder(known, key)] == key
    if stranger not in people.values():
        assert keys.holder(known, stranger) is None


def test_every_digest_is_compared_whoever_asks(monkeypatch):
    compared = []

    def compare(one, other):
        compared.append(other)
        return hmac_compare(one, other)

    hmac_compare = hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    known = {name: keys.digest(name) for name in "abc"}
    for key in ("a", "c", "nobody"):
        compared.clear()
        keys.holder(known, key)
        assert compared == list(known.values())


def test_what_headers_cannot_carry_is_nobodys_key():
    assert keys.holder({"a": keys.digest("a")}, "\udcff\x00") is None
