"""The command line: ``mmbridge VERB …``. Nothing here imports torch; a verb does when it runs."""

import sys


def main() -> None:
    """Runs the command line and exits with its code."""
    from mmbridge.cli.app import run

    sys.exit(run(sys.argv[1:]))
