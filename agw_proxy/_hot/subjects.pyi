"""Who a request is from, as its JSON body tells it. Both lanes ask here, so that they cannot disagree."""

from agw_proxy._hot.peek import Peek

def user(body: bytes, seen: Peek, messages: bool) -> str | None:
    """The member ``user``; of Anthropic's Messages (``messages``) ``metadata.user_id`` without the session in it.

    That is what stands before ``_session_``, or, where it is a JSON object in a text (as coding tools send it), its
    ``account_uuid``, ``user_id`` or ``device_id``. What takes more than 1,024 bytes names nobody. Raises ValueError where
    ``seen`` is another body's.
    """

def session(body: bytes, seen: Peek, header: bytes | None, key: int, messages: bool, derive: bool) -> int:
    """A hash that is the same for all turns of one session of the key ``key``; 0 where the request has none.

    ``header``: the value of ``x-session-id``, which is strongest. Then ``conversation`` (a text, or an object with an
    ``id``), ``prompt_cache_key``, the session in ``metadata.user_id``; then, where ``derive``, how the conversation
    begins: the first 4,096 bytes of the texts of its system prompt and its messages up to the first one of the user,
    found within 64 KiB. Two conversations that begin alike are one session then. Raises ValueError where ``seen`` is
    another body's.
    """

def choices(body: bytes, seen: Peek) -> int:
    """How many answers are asked for: ``n`` or ``best_of``, 1 to 128, for each in a list of prompts.

    Raises ValueError where ``seen`` is another body's.
    """

def bounds(body: bytes, seen: Peek) -> tuple[int, int] | None:
    """What Google's ``generationConfig`` says: tokens that an answer may have (0: nothing said), and how many answers.

    Gemini API reference, "GenerationConfig", in either spelling of its names. None where it is written in an unusual way:
    names with escapes, a count twice, numbers that are no plain digits. Raises ValueError where ``seen`` is another body's.
    """
