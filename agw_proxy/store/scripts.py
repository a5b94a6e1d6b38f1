"""The limits in Redis: one script an algorithm, which gives back, pays debts and takes for some subjects in one atomic step.

All read Redis' own clock, so that the nodes' need not agree. Amounts are whole numbers up to 2^53 (a Lua number is a
double). The key of a subject says all that is kept of it and vanishes once that says nothing more; so a Redis that has
forgotten a key behaves as if nothing had been used.

What is taken: nothing where less than ``need`` is left; else up to ``want``, but not more than the nodes' even part of
what is left: towards its end an amount is not held by one node while the others refuse. At least ``need`` in any case.
"""

from collections.abc import Sequence
from hashlib import sha1
from typing import NamedTuple, Protocol

from redis.asyncio import Connection, Redis
from redis.exceptions import NoScriptError

from agw_proxy._hot.limit import BUCKET, CALENDAR, SLIDING, TOTAL

SUB_WINDOWS = 23  # beside the running one; they cover a period

_BEGIN = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local answers = {}
local function whole(number) return ('%.0f'):format(number + 0) end -- never "-0"
for place, key in ipairs(KEYS) do
local told = {}
for number in ARGV[2 * place - 1]:gmatch('%S+') do told[#told + 1] = tonumber(number) end
local amount, period, full, need, want, owed, back, nodes = unpack(told)
local mark = ARGV[2 * place]
local function part(left)
    if left < need or left < 1 then return 0 end
    return math.max(need, math.min(want, math.ceil(math.floor(left) / nodes)))
end
local function answer(got, wait, left, mark)
    answers[place] = whole(got) .. ' ' .. whole(wait) .. ' ' .. whole(left) .. ' ' .. mark
end
"""

_END = """
end
return table.concat(answers, '\\n')
"""

# Kept: "<what is left> <when that was so>". A bucket that is full is not kept.
_BUCKET = (
    _BEGIN
    + """
local rate, level = amount / period, full
local kept = redis.call('GET', key)
if kept then
    local left, at = kept:match('^(%S+) (%S+)$')
    level = math.min(full, left + math.max(now - at, 0) * rate)
end
level = math.min(full, level + back) - owed
local got = part(level)
if need > full and level >= full then got = need end
level = level - got
local wait = 0
if got < need then wait = math.ceil((math.min(need, full) - level) / rate) end
if level < full then
    redis.call('SET', key, ('%.17g '):format(level) .. whole(now), 'PX', whole(math.ceil((full - level) / rate / 1000) + 1))
elseif kept then
    redis.call('DEL', key)
end
answer(got, wait, math.floor(level), '')
"""
    + _END
)

# Kept: a hash of sub-window -> how much was taken in it. The mark is the sub-window.
_SLIDING = (
    _BEGIN
    + """
local width = math.ceil(period / SUB)
local slot = math.floor(now / width)
local left, live = amount, {}
local kept = redis.call('HGETALL', key)
for i = 1, #kept, 2 do
    local at, count = tonumber(kept[i]), tonumber(kept[i + 1])
    if at < slot - SUB then
        redis.call('HDEL', key, kept[i])
    else
        if kept[i] == mark and back > 0 then
            local less = math.min(back, count)
            redis.call('HINCRBY', key, mark, whole(-less))
            count = count - less
        end
        left = left - count
        live[#live + 1] = {at, count}
    end
end
left = left - owed
local got, wait = part(left), 0
if got < need then
    local free = left
    table.sort(live, function(one, other) return one[1] < other[1] end)
    live[#live + 1] = {slot, owed}
    for _, one in ipairs(live) do
        wait = (one[1] + SUB + 1) * width - now
        free = free + one[2]
        if free >= need then break end
    end
end
if got + owed > 0 then
    redis.call('HINCRBY', key, whole(slot), whole(got + owed))
    redis.call('PEXPIRE', key, whole(math.ceil((SUB + 1) * width / 1000) + 1))
end
answer(got, wait, left - got, whole(slot))
""".replace("SUB", str(SUB_WINDOWS))
    + _END
)

# Kept: "<window> <how much was taken in it>". The mark is the window: an hour, a day, a week from Monday, a month (UTC).
_CALENDAR = (
    _BEGIN
    + """
local day = 86400000000
local today = math.floor(now / day)
local window, ends
if period == 0 then
    window = math.floor(now / 3600000000)
    ends = (window + 1) * 3600000000
elseif period == 1 then
    window, ends = today, (today + 1) * day
elseif period == 2 then
    window = math.floor((today + 3) / 7)
    ends = (window * 7 + 4) * day
else
    local function leap(year) return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0) end
    local year, month, date = 1970, 1, today
    while date >= (leap(year) and 366 or 365) do
        date = date - (leap(year) and 366 or 365)
        year = year + 1
    end
    local days = {31, leap(year) and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}
    while date >= days[month] do
        date = date - days[month]
        month = month + 1
    end
    window = year * 12 + month
    ends = (today - date + days[month]) * day
end
local used = 0
local kept = redis.call('GET', key)
if kept then
    local at, count = kept:match('^(%S+) (%S+)$')
    if at == whole(window) then used = tonumber(count) end
end
if mark == whole(window) then used = math.max(used - back, 0) end
used = used + owed
local got, wait = part(amount - used), 0
if got < need then wait = ends - now end
used = used + got
redis.call('SET', key, whole(window) .. ' ' .. whole(used), 'PX', whole(math.ceil((ends - now) / 1000) + 1))
answer(got, wait, amount - used, whole(window))
"""
    + _END
)

# Kept: how much was taken since the subject was silent for a period.
_TOTAL = (
    _BEGIN
    + """
local used = math.max(tonumber(redis.call('GET', key) or '0') - back, 0) + owed
local got, wait = part(amount - used), 0
if got < need then wait = period end
used = used + got
if got + owed > 0 then
    redis.call('SET', key, whole(used), 'PX', whole(math.ceil(period / 1000) + 1))
else
    redis.call('SET', key, whole(used), 'KEEPTTL')
    if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, whole(math.ceil(period / 1000) + 1)) end
end
answer(got, wait, amount - used, '')
"""
    + _END
)

# Which nodes are there: a sorted set of names by when they were last heard of.
_BEAT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
"""


class Script(NamedTuple):
    """A script by what Redis knows it by."""

    source: str
    sha: str


def _script(source: str) -> Script:
    return Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())


TAKES = {BUCKET: _script(_BUCKET), SLIDING: _script(_SLIDING), CALENDAR: _script(_CALENDAR), TOTAL: _script(_TOTAL)}
"""The script by a rule's algorithm."""
BEAT = _script(_BEAT)


class Terms(Protocol):
    """What is read of a rule."""

    @property
    def algorithm(self) -> int:
        """BUCKET, SLIDING, CALENDAR or TOTAL."""
        ...

    @property
    def amount(self) -> int:
        """How much a period, a window, or in all."""
        ...

    @property
    def period_ns(self) -> int:
        """The period; of TOTAL: the silence that ends it."""
        ...

    @property
    def burst(self) -> int:
        """A full bucket; 0: the amount."""
        ...

    @property
    def calendar(self) -> int:
        """HOUR, DAY, WEEK or MONTH."""
        ...


class Take(NamedTuple):
    """What is asked for one subject of a rule. Amounts are in the rule's unit."""

    rule: Terms
    tag: int
    need: int
    """Less than this is of no use."""
    want: int
    owed: int = 0
    """Used already beyond what was taken; it is charged whatever is left."""
    back: int = 0
    """Taken earlier and not used."""
    mark: str = ""
    """Where ``back`` was taken from (``Taken.mark``)."""


class Taken(NamedTuple):
    """What came of it."""

    got: int
    wait_ns: int
    """Until ``need`` may be there; 0 where it was."""
    left: int
    """Of the whole, for all nodes; below 0 where more is owed than there is."""
    mark: str


def arguments(take: Take, nodes: int) -> tuple[str, str]:
    """What the script of the rule's algorithm is told: all numbers in one word, since the client writes each apart."""
    rule = take.rule
    period = rule.calendar if rule.algorithm == CALENDAR else max(rule.period_ns // 1000, 1)
    full = rule.burst or rule.amount
    numbers = f"{rule.amount} {period} {full} {take.need} {take.want} {take.owed} {take.back} {max(nodes, 1)}"
    return numbers, take.mark


def read(answer: bytes) -> list[Taken]:
    """What a script has answered, a line a take."""
    return [
        Taken(int(got), int(wait) * 1000, int(left), mark.decode())
        for got, wait, left, mark in (line.split(b" ") for line in answer.split(b"\n"))
    ]


class Kept:
    """A connection that is not given back to its pool after each question: fetching it is much of what a question costs."""

    def __init__(self) -> None:
        self._free: list[Connection] = []

    async def ask(self, redis: Redis, call: Sequence[str | int]) -> bytes:
        """The answer. Raises RedisError, after which the connection goes back to the pool, as it does when cancelled."""
        pool = redis.connection_pool
        connection: Connection = self._free.pop() if self._free else await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await pool.ensure_connection(connection)  # it may have been closed meanwhile
            await connection.send_command(*call, check_health=False)
            answer: bytes = await connection.read_response()
        except BaseException:
            await pool.release(connection)
            raise
        if self._free:  # another has asked at the same time
            await pool.release(connection)
        else:
            self._free.append(connection)
        return answer


async def run(redis: Redis, kept: Kept, prefix: str, takes: Sequence[Take], nodes: int) -> list[Taken]:
    """All of them in one round trip (two where Redis does not know the scripts any more), in order.

    The takes of an algorithm are one command, since each command has its price here. Each take is of another subject.
    Raises RedisError, for the first that failed.
    """
    places: dict[int, list[int]] = {}
    for place, take in enumerate(takes):
        places.setdefault(take.rule.algorithm, []).append(place)
    calls: list[tuple[str | int, ...]] = []
    for algorithm, those in places.items():
        keys = [f"{prefix}:limit:{takes[place].tag:016x}" for place in those]
        told: list[str] = [word for place in those for word in arguments(takes[place], nodes)]
        calls.append(("EVALSHA", TAKES[algorithm].sha, len(keys), *keys, *told))
    found = await _send(redis, kept, calls)
    unknown = [number for number, one in enumerate(found) if isinstance(one, NoScriptError)]
    if unknown:
        algorithms = list(places)
        whole: list[tuple[str | int, ...]] = [
            ("EVAL", TAKES[algorithms[number]].source, *calls[number][2:]) for number in unknown
        ]
        for number, one in zip(unknown, await _send(redis, kept, whole), strict=True):
            found[number] = one
    taken: dict[int, Taken] = {}
    for one, those in zip(found, places.values(), strict=True):
        if isinstance(one, BaseException):
            raise one
        taken.update(zip(those, read(one), strict=True))
    return [taken[place] for place in range(len(takes))]


async def _send(redis: Redis, kept: Kept, calls: Sequence[tuple[str | int, ...]]) -> list[bytes | BaseException]:
    """Their answers, or what each has raised."""
    if len(calls) == 1:
        try:
            return [await kept.ask(redis, calls[0])]
        except NoScriptError as error:
            return [error]
    async with redis.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*call)
        answers: list[bytes | BaseException] = await pipeline.execute(raise_on_error=False)
    return answers


async def beat(redis: Redis, prefix: str, node: str, seconds: float) -> int:
    """Tell that ``node`` is there; gives how many were heard of in the last ``seconds``. Raises RedisError."""
    key, milliseconds = f"{prefix}:nodes", str(round(seconds * 1000))
    try:
        return int(await redis.evalsha(BEAT.sha, 1, key, node, milliseconds))
    except NoScriptError:
        return int(await redis.eval(BEAT.source, 1, key, node, milliseconds))


async def leave(redis: Redis, prefix: str, node: str) -> None:
    """Tell that it is there no more. Raises RedisError."""
    await redis.zrem(f"{prefix}:nodes", node)
