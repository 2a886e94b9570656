"""Snapshots of the index: whole and of this catalog, or not used at all."""

import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.catalog import snapshot
from image_pipeline.catalog.snapshot import load, save
from image_pipeline.dedupe.index import build

TOKEN = "catalog-1"
NAME = "photos"
LARGEST = 2**64 - 1


def an_index(count=50, seed=1):
    random = np.random.default_rng(seed)
    return build(random.integers(0, LARGEST, count, dtype=np.uint64, endpoint=True))


def numbers(count=50, first=100):
    return np.arange(first, first + count, dtype=np.int64)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a good snapshot of 50 rows, and the bytes of its file."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, save(folder, NAME, an_index(), numbers(), TOKEN).read_bytes()


@pytest.fixture
def damaged(saved, tmp_path):
    """Load what these bytes of the good file are made into."""
    _, good = saved

    def loaded(change):
        data = bytearray(good)
        changed = change(data)
        snapshot._path(tmp_path, NAME).write_bytes(data if changed is None else changed)
        return load(tmp_path, NAME, TOKEN)

    return loaded


def same(found, index, wanted):
    assert found is not None
    assert found.numbers.tolist() == wanted.tolist()
    loaded, given = found.index.arrays(), index.arrays()
    assert loaded.keys() == given.keys()
    for name, array in given.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].tolist() == array.tolist()


@given(st.lists(st.tuples(st.integers(0, LARGEST), st.integers(1, 2**63 - 1)), max_size=20))
def test_what_is_loaded_is_what_was_saved(saved, rows):
    folder = saved[0] / "again"
    index = build(np.array([value for value, _ in rows], dtype=np.uint64))
    wanted = np.array([number for _, number in rows], dtype=np.int64)
    save(folder, NAME, index, wanted, TOKEN)
    found = load(folder, NAME, TOKEN)
    same(found, index, wanted)
    assert found.last_number == max((number for _, number in rows), default=0)


def test_lookups_in_a_loaded_index(tmp_path):
    index = an_index()
    save(tmp_path, NAME, index, numbers(), TOKEN)
    found = load(tmp_path, NAME, TOKEN)
    matches = found.index.within(index.hashes[[7, 30]] ^ np.uint64(0b11), 4)
    assert found.numbers[matches.row].tolist() == [107, 130]
    assert matches.distance.tolist() == [2, 2]


def test_arrays_are_read_only_and_aligned(saved):
    found = load(saved[0], NAME, TOKEN)
    for array in (found.numbers, *found.index.arrays().values()):
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.ctypes.data % 64 == 0


@pytest.mark.parametrize("name", ["photos/phash64", "..", "Sommer – Bäume", "a" * 60])
def test_any_name_stays_in_the_folder(tmp_path, name):
    folder = tmp_path / "new" / "folder"
    path = save(folder, name, an_index(), numbers(), TOKEN)
    assert [*folder.iterdir()] == [path]
    same(load(folder, name, TOKEN), an_index(), numbers())


def test_names_do_not_meet(tmp_path):
    save(tmp_path, "a", an_index(5), numbers(5), TOKEN)
    save(tmp_path, "b", an_index(6), numbers(6), TOKEN)
    assert len(load(tmp_path, "a", TOKEN).index) == 5
    assert len(load(tmp_path, "b", TOKEN).index) == 6


def test_nothing_saved_is_nothing_loaded(tmp_path):
    assert load(tmp_path, NAME, TOKEN) is None
    assert load(tmp_path / "missing", NAME, TOKEN) is None
    assert load(tmp_path, "a" * 5000, TOKEN) is None
    snapshot._path(tmp_path, NAME).mkdir()
    assert load(tmp_path, NAME, TOKEN) is None


def test_another_catalog_is_not_used(saved):
    assert load(saved[0], NAME, TOKEN) is not None
    assert load(saved[0], NAME, "catalog-2") is None


@pytest.mark.parametrize("constant", ["VERSION", "LAYOUT"])
def test_another_version_is_not_used(saved, constant, monkeypatch):
    monkeypatch.setattr(snapshot, constant, 99)
    assert load(saved[0], NAME, TOKEN) is None


def test_an_undamaged_file_is_used(damaged):
    same(damaged(lambda data: None), an_index(), numbers())


@pytest.mark.parametrize("tenths", range(10))
def test_a_cut_file_is_not_used(damaged, tenths):
    assert damaged(lambda data: data[: len(data) * tenths // 10]) is None
    assert damaged(lambda data: data[: len(data) * tenths // 10 + 7]) is None


@pytest.mark.parametrize("missing", [1, 7, 64])
def test_the_end_of_the_file_counts(damaged, missing):
    assert damaged(lambda data: data[:-missing]) is None
    assert damaged(lambda data: data + bytes(missing)) is None


def header_end(data):
    return snapshot.PREFIX.size + snapshot.PREFIX.unpack(data[: snapshot.PREFIX.size])[1]


def test_a_flipped_bit_in_any_byte_of_the_header_is_noticed(saved, damaged):
    for place in range(header_end(saved[1])):

        def flip(data, place=place):
            data[place] ^= 1 << place % 8

        assert damaged(flip) is None, place


def test_a_damaged_length_is_no_reason_to_ask_for_memory(damaged):
    def enlarge(data):
        length, checksum = snapshot.PREFIX.unpack(data[: snapshot.PREFIX.size])[1:]
        length |= 1 << 30
        data[: snapshot.PREFIX.size] = snapshot.PREFIX.pack(snapshot.MAGIC, length, checksum)

    tracemalloc.start()
    try:
        assert damaged(enlarge) is None
        # The file itself, read and changed by this test, is 2 MB.
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_a_flipped_byte_of_the_arrays_is_noticed(saved, damaged):
    begin, end = header_end(saved[1]), len(saved[1])
    # The ends of every array among them: numbers, hashes, rows, starts.
    sizes = [448, 448, 832]
    ends = [begin + sum(sizes[:n]) for n in range(4)]
    places = {*ends, *(place - 1 for place in ends[1:]), *range(begin, end, 40_009), end - 1}
    for place in sorted(places):

        def flip(data, place=place):
            data[place] ^= 0xFF

        assert damaged(flip) is None, place


def test_a_hole_in_the_arrays_is_noticed(saved, damaged):
    # What a power cut may leave: the length is right, a page was never written.
    begin = header_end(saved[1])

    def hole(data):
        data[begin : begin + 4096] = bytes(4096)

    assert damaged(hole) is None


@given(st.binary(max_size=300))
def test_any_other_file_is_not_used(saved, data):
    folder = saved[0]
    for content in (data, snapshot.MAGIC + data):
        snapshot._path(folder, "other").write_bytes(content)
        assert load(folder, "other", TOKEN) is None


def test_a_newer_snapshot_takes_the_place_of_the_older(tmp_path):
    save(tmp_path, NAME, an_index(5, seed=2), numbers(5), TOKEN)
    older = load(tmp_path, NAME, TOKEN)
    path = save(tmp_path, NAME, an_index(9, seed=3), numbers(9), TOKEN)
    assert [*tmp_path.iterdir()] == [path]
    same(load(tmp_path, NAME, TOKEN), an_index(9, seed=3), numbers(9))
    # Whoever works with the older one keeps it.
    same(older, an_index(5, seed=2), numbers(5))


def test_numbers_must_be_those_of_the_rows(tmp_path):
    with pytest.raises(ValueError, match="50 rows"):
        save(tmp_path, NAME, an_index(50), numbers(49), TOKEN)
    assert [*tmp_path.iterdir()] == []


def test_a_failed_save_leaves_the_former_file(tmp_path, monkeypatch):
    path = save(tmp_path, NAME, an_index(), numbers(), TOKEN)
    blocks = snapshot._blocks
    calls = []

    def full_disk(arrays):
        calls.append(arrays)
        for block in blocks(arrays):
            yield block
            if len(calls) == 2:
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot, "_blocks", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(tmp_path, NAME, an_index(9), numbers(9), TOKEN)
    assert [*tmp_path.iterdir()] == [path]
    same(load(tmp_path, NAME, TOKEN), an_index(), numbers())


def test_drafts_of_killed_savers_are_removed(tmp_path):
    path = snapshot._path(tmp_path, NAME)
    old, new = path.with_name(f"{path.name}.1.part"), path.with_name(f"{path.name}.2.part")
    other = tmp_path / "other.hashes.1.part"
    for draft in (old, new, other):
        draft.write_bytes(b"half")
    hours = time.time() - 2 * snapshot.ABANDONED_SECONDS
    os.utime(old, (hours, hours))
    os.utime(other, (hours, hours))
    save(tmp_path, NAME, an_index(), numbers(), TOKEN)
    # The new one may belong to a process that is still writing, the other to another name.
    assert {*tmp_path.iterdir()} == {path, new, other}


SAVER = """
import sys
from pathlib import Path
import numpy as np
from image_pipeline.catalog.snapshot import save
from image_pipeline.dedupe.index import build

count, folder = int(sys.argv[1]), Path(sys.argv[2])
index = build(np.full(count, count, dtype=np.uint64))
numbers = np.full(count, count, dtype=np.int64)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    save(folder, "photos", index, numbers, "catalog-1")
"""


def test_two_savers_at_once_leave_a_good_file(tmp_path):
    counts = (1000, 2000)
    savers = [
        subprocess.Popen(
            [sys.executable, "-c", SAVER, str(count), str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for count in counts
    ]  # fmt: skip
    for saver in savers:
        assert saver.stdout.readline() == "ready\n"
    for saver in savers:
        saver.stdin.write("go\n")
        saver.stdin.flush()
    seen = []
    while any(saver.poll() is None for saver in savers) or not seen:
        found = load(tmp_path, NAME, TOKEN)
        # Until the first one is there; from then on there is always a good one.
        assert found is not None or not seen
        if found is not None:
            seen.append(found)
    for saver in savers:
        saver.communicate()
        assert saver.returncode == 0
    assert [*tmp_path.iterdir()] == [snapshot._path(tmp_path, NAME)]
    for found in (*seen, load(tmp_path, NAME, TOKEN)):
        assert len(found.index) in counts
        assert {*found.numbers.tolist(), *found.index.hashes.tolist()} == {found.last_number}
        assert found.last_number == len(found.index)
