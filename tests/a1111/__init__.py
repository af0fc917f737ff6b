"""The extension in A1111, against a stand-in that calls its script as A1111 does."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.checks")
