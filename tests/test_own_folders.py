"""Tests leave nothing in the home of who runs them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from green_screen import tracking


def test_what_is_kept_for_a_user_lies_in_a_temporary_folder():
    kept = [str(tracking.spool_root()), os.environ["CUDA_CACHE_PATH"], os.environ["KERAS_HOME"]]
    for folder in kept:
        assert Path(folder).is_relative_to(tempfile.gettempdir())
