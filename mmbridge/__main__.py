"""``python -m mmbridge``."""

from mmbridge.cli import main

if __name__ == "__main__":
    main()
