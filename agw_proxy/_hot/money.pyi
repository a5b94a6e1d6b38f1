"""What calls cost, in whole micro-dollars (millionths of a US dollar)."""

from typing import final

@final
class Tariff:
    """What one model costs, immutable: micro-dollars a million tokens, a request, an image, a minute of audio."""

    @property
    def input(self) -> int: ...
    @property
    def cached(self) -> int:
        """A million tokens of the prompt that came from the provider's cache."""
    @property
    def output(self) -> int: ...
    @property
    def request(self) -> int: ...
    @property
    def image(self) -> int: ...
    @property
    def minute(self) -> int: ...
    @property
    def max_output(self) -> int:
        """The longest answer in tokens; 0 where nobody knows."""
    @property
    def free(self) -> bool:
        """Nothing of it costs anything."""
    def __init__(
        self,
        input: int = 0,  # noqa: A002  the name of the setting
        cached: int = 0,
        output: int = 0,
        request: int = 0,
        image: int = 0,
        minute: int = 0,
        max_output: int = 0,
    ) -> None:
        """Raises ValueError where one is below 0, OverflowError where one does not fit 64 bits."""
    def cost(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
        """Micro-dollars for a request with so many tokens, rounded once, half up.

        ``cached_tokens`` are a part of ``input_tokens``. Counts below 0 (unknown) are none.
        """
    def pieces(self, images: int, milliseconds: int) -> int:
        """Micro-dollars for what is not counted in tokens: images made, audio read. Rounded half up."""
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...
