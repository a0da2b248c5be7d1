"""Everything that is tested."""

import pytest

# So that a failed assertion of a helper shows its values, too.
pytest.register_assert_rewrite("tests.support")
