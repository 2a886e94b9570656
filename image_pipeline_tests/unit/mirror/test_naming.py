"""Every key has one path, every path one key, whatever keys people think of."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.mirror.naming import NAME_BYTES, TRASH, key_of, part_path, path_of, token_of

#: Keys as S3 takes them, with much of what makes trouble.
_TROUBLE = st.sampled_from(
    ["/", "//", "..", ".", " ", "~", "%", "~~", "~x1", "%41", "A", "a", "\u00e9", "e\u0301",
     "\u00c9", "\u00df", "\u017f", "\u0130", "\u0131", "\u03c2", "CON", "nul.", "\0", "\n", "\\",
     ":", "*", "\u202e", "\U0001f600", "x" * 130, "\u00e9" * 90, ".trash", ".part"]
)  # fmt: skip
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
keys = (
    st.lists(_TROUBLE | _TEXT, min_size=1, max_size=12)
    .map("".join)
    .filter(lambda key: key and len(key.encode()) <= 1024)
)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("uploads/photos/summer_2026.jpg", "uploads/photos/summer_2026.jpg"),
        # 7 = the first three letters, e00 the last three of twelve.
        ("uploads/photos/IMG_0001.JPG", "uploads/photos/IMG_0001~e07.JPG"),
        ("../../etc/passwd.txt", "%2e%2e/%2e%2e/etc/passwd.txt"),
        ("a/readme", "a/readme~x0"),
        ("a/2026.05.01/b.jpg", "a/2026.05.01~x0/b.jpg"),
        ("/a.jpg", "%/a.jpg"),
        (".htaccess", "%2ehtaccess~x0"),
        ("con.jpg", "%63on.jpg"),
        ("a b.jpg", "a b.jpg"),
        ("a?b.jpg", "a%3fb.jpg"),
        ("\u65e5\u672c.jpg", "\u65e5\u672c.jpg"),
        ("stra\u00dfe.jpg", "stra%c3%9fe.jpg"),
        ("line\nfeed.jpg", "line%0afeed.jpg"),
    ],
)
def test_examples(key, path):
    assert path_of(key) == path
    assert key_of(path) == key


@given(keys)
def test_there_and_back(key):
    assert key_of(path_of(key)) == key


@given(keys)
def test_back_from_servers_that_change_case_and_accents(key):
    path = path_of(key)
    assert key_of(path.lower()) == key
    assert key_of(unicodedata.normalize("NFC", unicodedata.normalize("NFD", path))) == key


@given(keys, keys)
def test_no_two_keys_share_a_path_on_any_server(one, other):
    if one != other:
        assert _as_the_bluntest_server(path_of(one)) != _as_the_bluntest_server(path_of(other))


@given(keys)
def test_neighbours_do_not_share_one_either(key):
    for other in (
        key.lower(),
        key.upper(),
        key + "/",
        key + "/x",
        unicodedata.normalize("NFD", key),
    ):
        if other != key:
            one, two = map(_as_the_bluntest_server, map(path_of, (key, other)))
            assert one != two
            # Neither is a folder where the other one is a file.
            assert not one.startswith(f"{two}/")
            assert not two.startswith(f"{one}/")


@given(keys)
def test_paths_are_safe(key):
    path = path_of(key)
    assert len(path.encode()) < 4096  # PATH_MAX of Linux
    for name in path.split("/"):
        assert 0 < len(name.encode()) <= NAME_BYTES
        assert name not in (".", "..")
        assert name.isprintable()
        assert not set('\\:*?"<>|') & set(name)
        assert name[-1] not in ". "
    first = path.split("/")[0]
    assert first[0] not in ". "
    assert first != TRASH


@given(keys)
def test_temporary_names_fit_and_are_nobody_elses(key):
    part = part_path(path_of(key), token_of("e", "s"))
    name = part.rpartition("/")[2]
    assert name.startswith(".")
    # What encrypted folders of common NAS take.
    assert len(name.encode()) <= 143


def test_tokens_tell_versions_apart():
    assert token_of("a", "b") == token_of("a", "b")
    assert len({token_of("a", "b"), token_of("b", "a"), token_of("a", "c")}) == 3


def _as_the_bluntest_server(path):
    """What a server may compare names by: no case, accents composed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold()).upper()
