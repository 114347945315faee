"""What is wrong with a record of a data set, as it is listed."""

from dataclasses import dataclass

from mmbridge.errors import UserError


@dataclass(frozen=True, slots=True)
class Problem:
    """One ``line`` that names the record's place; problems of one ``kind`` are counted together."""

    line: str
    kind: str

    @classmethod
    def of(cls, error: UserError, where: str) -> "Problem":
        """The problem that an error tells of.

        Args:
            where: the record's file and line, or shard and key, put in front where the error does not name it.
        """
        line = " ".join(str(error).split())
        return cls(line if where in line else f"{where}: {line}", error.problem.partition(", found")[0])
