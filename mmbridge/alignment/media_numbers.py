"""Which samples show the same medium, so that what they share is taken neither for evidence nor for chance."""

from mmbridge.data.media_key import key_of
from mmbridge.data.sample import Sample


class MediaNumbers:
    """Numbers samples by what they show, from 0 on: one that shows a medium which came before has its number again."""

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}
        self._next = 0

    def __call__(self, sample: Sample) -> int:
        """Of a sample with media; where these came with different ones, the first number of them.

        Raises:
            MediaError: a medium cannot be read.
        """
        keys = [key_of(medium) for medium in sample.media]
        number = min((self._known[key] for key in keys if key in self._known), default=self._next)
        self._known |= {key: number for key in keys if key not in self._known}
        self._next = max(self._next, number + 1)
        return number
