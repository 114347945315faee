"""Where this machine keeps what can be made or fetched again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``mmbridge`` under ``$XDG_CACHE_HOME``, or under ``~/.cache``; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmbridge"
