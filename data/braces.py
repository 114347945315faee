"""Brace patterns, as shards are named by them."""

from mmbridge.errors import DataError


def expanded(pattern: str) -> list[str]:
    """What a pattern such as ``train-{000..009}.tar`` stands for; a name without braces stands for itself.

    Raises:
        DataError: a fault in the pattern.
    """
    if "{" not in pattern:
        return [pattern]
    from webdataset.shardlists import expand_urls

    try:
        return list(expand_urls(pattern))
    except ValueError as error:
        problem = f"expected a brace pattern such as {{000..009}}, found a fault in it ({error})"
        raise DataError(pattern, problem) from None
