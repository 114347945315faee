"""The errors a user can meet, and the exit code each one ends in.

MMBridgeError                 1: an internal fault, or some inputs failed
└── UserError                 2: one clear line: where, expected, found, what to do
    ├── RecipeError           a recipe, an override, a part that cannot be built from them
    ├── MediaError            a file that is not the medium it should be
    ├── DataError             a sample or a data set that cannot be used as asked
    │   └── SourceError       a data set that went out of reach, or changed, while it was read
    ├── FeatureError          features on disk that are stale, incomplete or damaged
    └── BridgeError           a bridge folder that is incomplete or no longer fits its frozen parts
"""


class MMBridgeError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1


class UserError(MMBridgeError):
    """Something the user can put right, said in one line.

    Args:
        where: the file, key or sample at fault.
        problem: what is wrong, as a rule ``expected X, found Y``.
        fix: what to do about it; left out where the problem says so itself.
    """

    exit_code = 2

    def __init__(self, where: object, problem: str, fix: str = "") -> None:
        self.where, self.problem, self.fix = str(where), problem, fix
        super().__init__(f"{where}: {problem}" + (f"; {fix}" if fix else ""))

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str, str]]:
        """Errors come back from loader workers; by default an exception is rebuilt from its one message."""
        return type(self), (self.where, self.problem, self.fix)


class RecipeError(UserError):
    """A recipe or an override that cannot be read, or parts that cannot be built from it."""


class MediaError(UserError):
    """A media file that is missing, empty, damaged, too large or not of its kind."""


class DataError(UserError):
    """A sample or data set that cannot be used: its id is in ``where``."""


class SourceError(DataError):
    """A data set that cannot be reached or is no longer what was opened. No sample is at fault, and none left out."""


class FeatureError(UserError):
    """Features on disk that are not those of the encoder asked for, or cannot be read. No sample is at fault."""


class BridgeError(UserError):
    """A bridge folder with missing or unexpected tensors, or whose frozen parts have changed."""
