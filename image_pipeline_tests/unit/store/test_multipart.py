"""How a file is cut into parts."""

from hypothesis import given
from hypothesis import strategies as st

from image_pipeline.store.multipart import PART_BYTES, part_sizes


@given(st.integers(1, 10_000), st.integers(1, 500))
def test_parts_make_up_the_file(size, part_bytes):
    sizes = part_sizes(size, part_bytes)
    assert sum(sizes) == size
    assert all(one == part_bytes for one in sizes[:-1])
    assert 0 < sizes[-1] <= part_bytes


def test_parts_are_what_s3_takes():
    # Its rules: 5 MiB at least but for the last, and 10,000 parts at most.
    assert PART_BYTES >= 5 * 1024**2
    assert len(part_sizes(2_000_000_000)) <= 10_000
