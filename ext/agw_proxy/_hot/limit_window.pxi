# Part of limit.pyx: lines that count within a time: sliding windows, calendars, and totals that silence ends.
#
# Whoever counts holds the line's lock, for some tens of nanoseconds. Each step leaves what can be gone on from:
# ``total`` alone is the truth of calendars and totals; of a sliding window its parts are, and ``mend`` adds them up.

cdef int64_t NS_HOUR = <int64_t>3600 * 1000000000
cdef int64_t NS_DAY = <int64_t>86400 * 1000000000


cdef int64_t month_of(int64_t days) noexcept nogil:
    """Months since year 0 of a day since 1970-01-01, in the proleptic Gregorian calendar."""
    # Years that begin in March have their leap day last, and eras of 400 years are all alike.
    cdef int64_t shifted = days + 719468
    cdef int64_t era = (shifted if shifted >= 0 else shifted - 146096) // 146097
    cdef int64_t day = shifted - era * 146097
    cdef int64_t year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    cdef int64_t of_year = day - (365 * year + year // 4 - year // 100)
    cdef int64_t month = (5 * of_year + 2) // 153        # 0 is March
    return (year + era * 400) * 12 + month + 2


cdef int64_t first_day_of(int64_t month) noexcept nogil:
    """The inverse of ``month_of``: the day since 1970-01-01 that the month begins with."""
    cdef int64_t shifted = month - 2
    cdef int64_t year = (shifted if shifted >= 0 else shifted - 11) // 12
    cdef int64_t of_year = (153 * (shifted - year * 12) + 2) // 5
    cdef int64_t era = (year if year >= 0 else year - 399) // 400
    year -= era * 400
    return era * 146097 + year * 365 + year // 4 - year // 100 + of_year - 719468


cdef int64_t number_of(int calendar, int64_t wall) noexcept nogil:
    """Which hour, day, week (from Monday) or month of UTC it is. ``wall`` before 1970 counts as 1970."""
    cdef int64_t days
    if wall < 0:
        wall = 0
    if calendar == HOUR:
        return wall // NS_HOUR
    days = wall // NS_DAY
    if calendar == DAY:
        return days
    if calendar == WEEK:
        return (days + 3) // 7
    return month_of(days)


cdef int64_t begin_of(int calendar, int64_t number) noexcept nogil:
    """UTC nanoseconds at which that hour, day, week or month begins."""
    if calendar == HOUR:
        return number * NS_HOUR
    if calendar == DAY:
        return number * NS_DAY
    if calendar == WEEK:
        return (number * 7 - 3) * NS_DAY
    return first_day_of(number) * NS_DAY


cdef inline int64_t turn_of(Table table, int calendar, int64_t wall) noexcept nogil:
    """``number_of``, kept in this process until it changes."""
    if not table.turned[calendar] <= wall < table.turns[calendar]:
        table.turn[calendar] = number_of(calendar, wall)
        table.turned[calendar] = begin_of(calendar, table.turn[calendar])
        table.turns[calendar] = begin_of(calendar, table.turn[calendar] + 1)
    return table.turn[calendar]


cdef int64_t idle_from(Table table, const Window* window) noexcept nogil:
    """Nanoseconds since the origin from which nothing is counted in the line any more."""
    cdef int algorithm = <int>(window.kind & 15), calendar = <int>((window.kind >> 4) & 3)
    cdef int64_t wall
    if window.kind == 0 or window.tag == ASIDE or (window.total <= 0 and window.owed <= 0):
        return 0
    if algorithm == SLIDING:
        return (window.number + PARTS) * window.span
    if algorithm == TOTAL:
        return plus(window.parts[0], window.span)
    wall = begin_of(calendar, window.number + 1)
    return wall - table.header.wall - instant(load(&table.header.origin))


cdef void roll(Table table, Window* window, const Terms* terms, const Moment* at) noexcept nogil:
    """Under the line's lock: forget what is past at this moment. A moment before that is the newest one seen."""
    cdef int64_t number, part, last
    cdef int i
    if window.kind != terms.kind or window.span != terms.span:
        # A line that has just been claimed: nothing stands in it.
        window.kind, window.span = terms.kind, terms.span
        window.number = 0
    if terms.algorithm == SLIDING:
        number = at.ns // terms.span
        if number > window.number:
            last = min(number, window.number + PARTS)
            for part in range(window.number + 1, last + 1):
                i = <int>(part % PARTS)
                if window.parts[i]:
                    window.total -= window.parts[i]
                    window.parts[i] = 0
            window.number = number
    elif terms.algorithm == CALENDAR:
        number = turn_of(table, terms.calendar, at.wall)
        if number > window.number:
            window.total, window.told = 0, 0
            store_signed(&window.number, number)
    elif at.ns - window.parts[0] >= terms.span or window.number == 0:
        window.total, window.told = 0, 0
        window.parts[0] = at.ns
        store_signed(&window.number, at.ns + 1)
    if window.owed:
        number = load_signed(&window.owed)
        put_in(window, number if number > 0 else max(number, -window.total))
        add(<uint64_t*>&window.owed, <uint64_t>-number)
    if terms.marked and window.told:
        for i in range(terms.marked):
            if <double>window.total < terms.marks[i] * <double>terms.room:
                window.told &= ~(<uint64_t>1 << i)


cdef inline void put_in(Window* window, int64_t count) noexcept nogil:
    cdef int64_t* part
    if window.kind & 15 == SLIDING:
        part = &window.parts[window.number % PARTS]
        part[0] = plus(part[0], count)
    window.total = plus(window.total, count)


cdef int64_t empty_in(Table table, const Window* window, const Terms* terms, const Moment* at) noexcept nogil:
    """Nanoseconds until nothing is counted any more."""
    cdef int64_t number = window.number
    cdef int i
    if window.total <= 0:
        return 0
    if terms.algorithm == CALENDAR:
        return max(begin_of(terms.calendar, number + 1) - at.wall, 0)
    if terms.algorithm == TOTAL:
        return max(plus(window.parts[0], terms.span) - at.ns, 0)
    for i in range(PARTS):
        if window.parts[number % PARTS]:
            break
        number -= 1
    return max((number + PARTS) * terms.span - at.ns, 0)


cdef int64_t room_in(
    Table table, const Window* window, const Terms* terms, int64_t lack, const Moment* at
) noexcept nogil:
    """Nanoseconds until ``lack`` more has room; where that can never be, until nothing is counted."""
    cdef int64_t number = window.number - PARTS + 1
    cdef int i
    if terms.algorithm == SLIDING:
        for i in range(PARTS):
            if number >= 0:
                lack -= window.parts[number % PARTS]
                if lack <= 0:
                    return max((number + PARTS) * terms.span - at.ns, 0)
            number += 1
    return max(empty_in(table, window, terms, at), 1)


cdef inline bint is_of(Table table, int line, const Hold* hold, const Terms* terms) noexcept nogil:
    return load(&table.window_lines[line].tag) == (hold.tag if line < table.windows else terms.identity)


cdef int count_in(
    Table table, Hold* hold, const Terms* terms, const Moment* at, int64_t room, bint forced
) noexcept nogil:
    """Take ``hold.count``, or find that it has no room: then ``hold.reset`` is the time until it has. A Verdict."""
    cdef int _attempt, verdict = BUSY
    for _attempt in range(ATTEMPTS):
        hold.line = line_of(table.window_lines, WINDOW_BYTES, table.windows, hold.tag, True)
        if hold.line >= 0:
            verdict = count_here(table, hold, terms, at, room, forced)
        elif table.lock():
            hold.line = evict_window(table, hold.tag, terms, at)
            verdict = REFUSED
            if hold.line >= 0:
                verdict = count_here(table, hold, terms, at, room, forced)
            else:
                hold.after, hold.reset = 0, FULL_NS
            store(&table.header.lock, 0)
        else:
            return BUSY
        if verdict != MOVED:
            return verdict
    return BUSY


cdef int count_here(
    Table table, Hold* hold, const Terms* terms, const Moment* at, int64_t room, bint forced
) noexcept nogil:
    cdef Window* window = &table.window_lines[hold.line]
    cdef int verdict = TAKEN
    cdef int64_t used
    if not is_of(table, hold.line, hold, terms):
        return MOVED
    if not acquire(&window.lock, table._worker, SPINS):
        if forced:
            add(<uint64_t*>&window.owed, <uint64_t>hold.count)
        return TAKEN if forced else BUSY
    if is_of(table, hold.line, hold, terms):
        roll(table, window, terms, at)
        used = plus(window.total, hold.count)
        if forced or used <= room:
            hold.number = window.number
            put_in(window, hold.count)
            if terms.algorithm == TOTAL and at.ns > window.parts[0]:
                window.parts[0] = at.ns
            hold.after = max(room - used, 0)
            hold.reset = empty_in(table, window, terms, at)
        else:
            verdict = REFUSED
            hold.after = 0
            hold.reset = room_in(table, window, terms, used - room, at)
            used = room     # whoever is refused learns that it is at its end
        if terms.marked:
            tell(window, hold, terms, used, room)
    else:
        verdict = MOVED
    let_go(&window.lock)
    return verdict


cdef void tell(Window* window, Hold* hold, const Terms* terms, int64_t used, int64_t room) noexcept nogil:
    """Under the line's lock: each mark is told once while what is counted stays above it."""
    cdef int i
    for i in range(terms.marked):
        if not window.told >> i & 1 and <double>used >= terms.marks[i] * <double>room:
            window.told |= <uint64_t>1 << i
            hold.crossed |= <uint8_t>(1 << i)


cdef bint take_out(Table table, const Hold* hold, const Terms* terms, int64_t count, const Moment* at) noexcept nogil:
    """Give back to where it was taken from, if that is counted still; else there is nothing to give: False."""
    cdef Window* window = &table.window_lines[hold.line]
    cdef int64_t back
    cdef bint still = False
    if not is_of(table, hold.line, hold, terms):
        return False
    if not acquire(&window.lock, table._worker, SPINS * PATIENCE):
        # Whoever has the lock was put to sleep with it: the next one that gets it takes this over.
        back = load_signed(&window.number)
        still = hold.number > back - PARTS if terms.algorithm == SLIDING else hold.number == back
        if still and is_of(table, hold.line, hold, terms):
            add(<uint64_t*>&window.owed, <uint64_t>-count)
        return still
    if is_of(table, hold.line, hold, terms):
        roll(table, window, terms, at)
        if terms.algorithm == SLIDING:
            if hold.number > window.number - PARTS:
                still = True
                back = min(count, window.parts[hold.number % PARTS])
                window.parts[hold.number % PARTS] -= back
                window.total -= back
        elif window.number == hold.number:
            still = True
            window.total -= min(count, window.total)
    let_go(&window.lock)
    return still


cdef void look_in(
    Table table, uint64_t tag, const Terms* terms, const Moment* at, int64_t room, int64_t* left, int64_t* reset
) noexcept nogil:
    """What is left and nanoseconds until all is back, as another's counting may just leave it; takes nothing."""
    cdef int line = line_of(table.window_lines, WINDOW_BYTES, table.windows, tag, False)
    cdef Window seen
    cdef int i
    left[0], reset[0] = room, 0
    if line == NO_PLACE:
        line = overflow_of(table.window_lines, WINDOW_BYTES, table.windows, terms.identity, False)
    if line < 0:
        return
    memcpy(&seen, &table.window_lines[line], sizeof(Window))
    if seen.kind != terms.kind or seen.span != terms.span:
        return
    seen.told = 0
    roll(table, &seen, terms, at)
    if terms.algorithm == SLIDING:
        seen.total = 0
        for i in range(PARTS):
            seen.total += seen.parts[i]
    left[0] = between(room - seen.total, 0, room)
    reset[0] = empty_in(table, &seen, terms, at)


cdef int evict_window(Table table, uint64_t tag, const Terms* terms, const Moment* at) noexcept nogil:
    """Under the table's lock: the subject's line after all, or an idle one turned over to it, or the overflow line."""
    cdef int line = line_of(table.window_lines, WINDOW_BYTES, table.windows, tag, True)
    cdef int _probe, probe
    if line >= 0:
        return line
    line = overflow_of(table.window_lines, WINDOW_BYTES, table.windows, terms.identity, False)
    if line < 0 or idle_from(table, &table.window_lines[line]) <= at.ns - GRACE_NS:
        line = home_of(tag, table.windows)
        for _probe in range(PROBES):
            if turn_over(table, line, tag, at):
                return line
            line = line + 1 if line + 1 < table.windows else 0
    add(&table.header.overflowed, 1)
    line = overflow_of(table.window_lines, WINDOW_BYTES, table.windows, terms.identity, True)
    if line >= 0:
        return line
    for probe in range(OVERFLOW):
        line = table.windows + (<int>(terms.identity % OVERFLOW) + probe) % OVERFLOW
        if turn_over(table, line, terms.identity, at):
            return line
    return NO_PLACE


cdef bint turn_over(Table table, int line, uint64_t tag, const Moment* at) noexcept nogil:
    """Under the table's lock: give a line in which nothing is counted to another subject."""
    cdef Window* window = &table.window_lines[line]
    cdef bint idle
    if idle_from(table, window) > at.ns - GRACE_NS or not acquire(&window.lock, table._worker, SPINS):
        return False
    idle = idle_from(table, window) <= at.ns - GRACE_NS
    if idle:
        store(&window.tag, ASIDE)
        window.kind = window.told = 0
        window.span = window.number = window.total = 0
        store_signed(&window.owed, 0)
        memset(window.parts, 0, sizeof(window.parts))
        store(&window.tag, tag)
    let_go(&window.lock)
    return idle


cdef void mend(Window* window) noexcept nogil:
    """After its holder's death, or from a file: the parts are the truth, and nothing counts below 0."""
    cdef int i
    if window.kind & 15 == SLIDING:
        window.total = 0
        for i in range(PARTS):
            window.parts[i] = max(window.parts[i], 0)
            window.total = plus(window.total, window.parts[i])
    window.total = max(window.total, 0)
    let_go(&window.lock)
