"""How a failure is told: one line on stderr and an exit code."""

import errno
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from mmbridge.cache import cache_folder
from mmbridge.errors import MMBridgeError

_OURS_TO_SAY = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
"""What the operating system refuses and the user can put right: permission and room on the disk."""


def ending(error: BaseException) -> int:
    """Tells what went wrong and returns the exit code."""
    if os.environ.get("MMBRIDGE_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        tell("interrupted")
        return 130
    if isinstance(error, MMBridgeError):
        tell(str(error))
        return error.exit_code
    if hasattr(error, "format_message"):  # a usage error of the command line parser
        context = getattr(error, "ctx", None)
        tell(f"{getattr(context, 'command_path', 'mmbridge')}: {error.format_message()}")
        return 2
    if isinstance(error, OSError) and error.errno in _OURS_TO_SAY:
        tell(f"{error.filename or 'disk'}: {(error.strerror or str(error)).lower()}")
        return 2
    if type(error).__name__ == "OutOfMemoryError":  # torch's, by name: torch need not be imported to know it
        tell("the device is out of memory; use a smaller batch, a narrower --dtype, or --device cpu")
        return 2
    tell(f"internal fault: {type(error).__name__}: {error}; traceback in {_record(error)}")
    return 1


def tell(line: str) -> None:
    """One line to stderr, whatever the text holds."""
    print(" ".join(line.split()), file=sys.stderr)


def _record(error: BaseException) -> Path:
    """Writes the traceback where it can be found again."""
    text = f"mmbridge {' '.join(sys.argv[1:])}\n\n" + "".join(traceback.format_exception(error))
    name = f"mmbridge-fault-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        path = cache / name
        path.write_text(text, encoding="utf-8")
    except OSError:
        path = Path(tempfile.gettempdir()) / name
        path.write_text(text, encoding="utf-8")
    return path
