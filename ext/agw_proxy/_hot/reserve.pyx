"""Reserve, then settle: the tokens and the money that a request may need, and what it came to.

Tokens are estimated from the body and from what the target's answers have taught (``tokens``). Money is reserved for
the worst case: the whole prompt at its full price, and the longest answer that the request allows or the model can
give. Settled is what the upstream has told; where it tells nothing, what came through.
"""

cimport cython
from libc.stdint cimport int64_t

from .limit cimport (
    AT_CHANNEL, AT_KEY, AT_MODEL, AT_SESSION, AT_TEAM, AT_TOOL, AT_UPSTREAM, AT_USER, COUNTS_COST, SUBJECTS, Grant,
)
from .money cimport Tariff
from .tokens cimport Learner, count_


cdef void estimate_(
    Estimate *made, Learner learner, Tariff tariff, const unsigned char *body, Py_ssize_t size, int64_t max_tokens,
    int64_t choices, bint generates, bint steps, bint by_bytes
) noexcept:
    cdef int64_t most = tariff.max_output if tariff is not None else 0
    cdef int64_t worst
    made.size = size
    made.raw = 0
    made.prompt = learner.by_bytes_(size) if by_bytes and learner is not None else -1
    if made.prompt < 0:
        made.raw = count_(body, size)
        made.prompt = learner.prompt_(made.raw) if learner is not None else made.raw
    made.output = made.cost = made.extra = 0
    if generates:
        made.output = learner.output_(max_tokens, most) if learner is not None else max(max_tokens, 0)
        made.output = times(made.output, choices)
    if tariff is not None:
        worst = made.output
        if generates and max_tokens < 0 and most > 0:
            worst = times(most, choices)
        made.cost = tariff.cost_(made.prompt, 0, min(worst, <int64_t>STEP_TOKENS) if steps else worst)
        if tariff.image and not generates:
            made.extra = tariff.pieces_(choices, 0)
            made.cost += made.extra


cdef inline int64_t times(int64_t tokens, int64_t choices) noexcept nogil:
    return tokens * choices if tokens < <int64_t>1 << 31 else tokens


cdef void spent_(
    Spent *spent, int how, const Estimate *made, Tariff tariff, int64_t prompt, int64_t completion, int64_t cached,
    int64_t content, int64_t bytes_out
) noexcept:
    tokens_(spent, how, made, prompt, completion, content, bytes_out)
    if tariff is not None and how < UNSERVED:
        spent.cost = tariff.cost_(spent.input, cached, spent.output) + (made.extra if how == SERVED else 0)


cdef inline void tokens_(
    Spent *spent, int how, const Estimate *made, int64_t prompt, int64_t completion, int64_t content, int64_t bytes_out
) noexcept nogil:
    """The same without what it costs."""
    spent.input = spent.output = spent.cost = 0
    if how >= UNSERVED:
        return
    spent.input = prompt if prompt >= 0 else made.prompt
    if how == PARTED:
        spent.output = max(max(completion, content), 0)
    elif completion >= 0:
        spent.output = completion
    elif content:
        spent.output = content
    elif prompt >= 0:
        spent.output = 0
    else:
        spent.output = min(made.output, bytes_out // BYTES_PER_TOKEN)


cdef bint settle_(
    Grant grant, int how, const Estimate *made, Learner learner, Tariff tariff, int64_t prompt, int64_t completion,
    int64_t cached, int64_t content, int64_t bytes_out, int64_t now
):
    cdef Spent spent
    if how == UNSERVED:
        return grant.undo(now)
    if how == REJECTED:
        return grant.true_up(0, 0, 0, now)
    if grant.limits is not None and grant.limits.counts & COUNTS_COST:
        spent_(&spent, how, made, tariff, prompt, completion, cached, content, bytes_out)
    else:
        tokens_(&spent, how, made, prompt, completion, content, bytes_out)
    if not grant.true_up(spent.input, spent.output, spent.cost, now):
        return False
    if how == SERVED and learner is not None and (made.raw > 0 or made.size > 0):
        learner.learn_(made.raw, prompt, completion if made.output else -1)
        learner.learn_bytes_(made.size, prompt)
    return True


@cython.final
cdef class Reserve:
    """What is reserved for one request of the full lane."""

    cdef Estimate made

    def __init__(
        self, int64_t raw=0, int64_t prompt=0, int64_t output=0, int64_t cost=0, int64_t extra=0, int64_t size=0,
    ):
        self.made.raw, self.made.prompt, self.made.output = raw, prompt, output
        self.made.cost, self.made.extra, self.made.size = cost, extra, size

    @property
    def extra(self):
        return self.made.extra

    @property
    def raw(self):
        return self.made.raw

    @property
    def size(self):
        return self.made.size

    @property
    def prompt(self):
        return self.made.prompt

    @property
    def output(self):
        return self.made.output

    @property
    def cost(self):
        return self.made.cost

    def settle(
        self, Grant grant not None, int how, Learner learner, Tariff tariff, usage, int64_t content, int64_t bytes_out,
        int64_t now_ns,
    ):
        return settle_(
            grant, how, &self.made, learner, tariff, usage.prompt, usage.completion, usage.cached, content, bytes_out,
            now_ns)

    def spent(self, int how, Tariff tariff, usage, int64_t content, int64_t bytes_out):
        cdef Spent spent
        spent_(&spent, how, &self.made, tariff, usage.prompt, usage.completion, usage.cached, content, bytes_out)
        return spent.input, spent.output, spent.cost


def estimate(
    bytes body not None, Learner learner, Tariff tariff, int64_t max_tokens, int64_t choices, bint generates,
    bint steps, bint by_bytes=False,
):
    cdef Reserve made = Reserve.__new__(Reserve)
    estimate_(
        &made.made, learner, tariff, <const unsigned char *><const char *>body, len(body), max_tokens, choices,
        generates, steps, by_bytes)
    return made


def crossings(Grant grant not None, int64_t now_ns):
    cdef dict standings
    cdef list found = []
    cdef bint ended
    cdef int i
    if grant.crossings == 0:
        return found
    standings = {
        standing.rule.name: standing for standing in grant.limits.look(
            now_ns, key=grant.ask.subjects[AT_KEY], team=grant.ask.subjects[AT_TEAM],
            user=grant.ask.subjects[AT_USER], channel=grant.ask.subjects[AT_CHANNEL],
            model=grant.ask.subjects[AT_MODEL], upstream=grant.ask.subjects[AT_UPSTREAM],
            tool=grant.ask.subjects[AT_TOOL], session=grant.ask.subjects[AT_SESSION])
    }
    for rule, share in grant.crossed:
        standing = standings.get(rule.name)
        if standing is None:
            continue
        left = standing.remaining + standing.elsewhere
        ended = not grant.granted and rule is grant.rule and grant.ask.cost <= rule.amount
        if not ended and rule.amount - left < share * rule.amount:
            continue
        subjects = tuple([grant.ask.subjects[i] if rule.per >> i & 1 else 0 for i in range(SUBJECTS)])
        found.append((rule, share, left, standing.reset_ns, subjects))
    return found
