import pytest

# Its asserts should say as much as those of a test.
pytest.register_assert_rewrite(f"{__name__}.stack")
