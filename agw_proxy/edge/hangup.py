"""Whether a client has gone that nobody reads at the moment: its socket would not tell, so the kernel is asked."""

import asyncio
import select

HANGUP_SECONDS = 0.05  # half of the 100 ms within which a client's leaving is acted on
HUNG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


def hung_up(transport: asyncio.BaseTransport) -> bool:
    """The other side has closed, whatever is still unread."""
    found = transport.get_extra_info("socket")
    if found is None or found.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(found.fileno(), HUNG_UP)
    return bool(poll.poll(0))
