"""Counting tokens without a tokenizer: an estimate from classes of characters, and what a target's answers teach."""

IMAGE_TOKENS: int
"""Counted for each picture, recording or file, whatever its size."""
MESSAGE_TOKENS: int
"""Counted for each message beside its text: its marks and its role."""
REPLY_TOKENS: int
"""Counted once a request: the mark that the answer is to follow."""

def count(body: bytes) -> int:
    """An estimate of the prompt tokens of a JSON request body, by o200k_base's measure.

    Reads Chat Completions, Responses, Messages, Completions and Embeddings. Of messages every string counts, escapes as
    what they stand for, but roles, types and ids; tools and answer formats count as the JSON they are. Any other
    top-level key counts nothing. Safe on any bytes; what is not JSON gives some number.
    """

def features(body: bytes, *, portable: bool = False) -> tuple[int, ...]:
    """What the estimate is a weighted sum of, in the order of ``tokens_scan.h``; for tests and for fitting.

    :param portable: by the loop for machines without AVX2; the counts are the same.
    """

class Learner:
    """What one target's answers have taught: true tokens for estimated ones, and how long its answers are.

    One a target and process; a decision is a few operations on numbers. Each answer moves the mean ratio, and that of
    its prompt's size (up to 64, 256, 1024, 4096 and 16384 estimated tokens, and beyond); a size that has seen few
    answers leans on the mean of all. Figures are plain means of the first 64 answers, and forget slowly after that.
    """

    deviation: float
    """How far the lengths of answers are off their mean, in tokens: a mean of absolute values; 0 where all are alike."""

    def by_bytes(self, size: int) -> int:
        """The prompt tokens to expect of a body of ``size`` bytes, without a look into it; -1 where that would not do.

        It does where the last bodies of about that size had tokens a byte that were alike within 3 % in the mean, as an
        agent's have, which says the same and a little more each time. It needs 16 answers, and one that is far off puts an end to it.
        """
    def learn_bytes(self, size: int, prompt_tokens: int) -> None:
        """The same answer's usage, for ``by_bytes``; 0 tokens say nothing."""
    def prompt(self, raw: int) -> int:
        """The prompt tokens to expect where ``count`` said ``raw``: between a fifth of it and five times it."""
    def output(self, max_tokens: int, most: int) -> int:
        """The tokens of an answer to reserve.

        ``max_tokens`` where the caller gave it (not negative), else a length that nearly all answers of this target
        stay below: the mean and three mean absolute deviations, 512 before the first answer. Never above ``most``, the
        longest answer that the model gives, where that is known (positive).
        """
    def learn(self, raw: int, prompt_tokens: int, output_tokens: int) -> None:
        """An answer's usage. ``prompt_tokens`` of 0 and a negative ``output_tokens`` say nothing."""
