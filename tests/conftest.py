"""What do several test files share? Fixtures named after things."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# No test of this project depends on how fast the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data" / "real"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of recorded market data, which is not published with the repository."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no recorded market data: {REAL_DATA} does not exist")
    return REAL_DATA
