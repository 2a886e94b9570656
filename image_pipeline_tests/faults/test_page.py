"""docs/reliability.md names tests that there are, and every test of faults."""

import re


def test_the_page_names_the_tests_that_there_are(pytestconfig):
    tests = pytestconfig.rootpath / "image_pipeline_tests"
    page = (pytestconfig.rootpath / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+/[\w/]+\.py)`", page))
    assert named
    for name in named:
        assert (tests / name).is_file(), name
    ours = {f"faults/{path.name}" for path in (tests / "faults").glob("test_*.py")}
    assert ours - named == {"faults/test_page.py"}
