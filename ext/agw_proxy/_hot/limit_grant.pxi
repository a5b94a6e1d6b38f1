# Part of limit.pyx: the Grant, and how what it holds is settled, extended, moved and given back.

@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class Grant:
    """The outcome of one decision, and what was taken: settled and released exactly once. Made by ``admit`` alone."""

    def __dealloc__(self):
        if self.limits is not None:
            self.leave()
        if self.holds != &self.few[0]:
            free(self.holds)

    @property
    def short(self):
        """Of which leased rules there is not enough credit here: (rule, tag, what is missing)."""
        return () if self.shortages is None else self.shortages

    @property
    def cost(self):
        """What it has asked for, in micro-dollars."""
        return self.ask.cost

    @property
    def crossed(self):
        """What was crossed: (rule, share of its amount)."""
        cdef int i
        if self.crossings == 0:
            return ()
        return tuple([
            (self.limits.rules[self.crossed_rule[i]],
             (<Rule>self.limits.rules[self.crossed_rule[i]]).marks[self.crossed_mark[i]])
            for i in range(self.crossings)
        ])

    cdef void notice(self, const Hold* hold) noexcept nogil:
        """Remember which marks were crossed."""
        cdef int i
        for i in range(MAX_MARKS):
            if hold.crossed >> i & 1 and self.crossings < MAX_CROSSINGS:
                self.crossed_rule[self.crossings] = hold.rule
                self.crossed_mark[self.crossings] = <uint8_t>i
                self.crossings += 1

    cdef bint true_up(self, int64_t input, int64_t output, int64_t cost, int64_t now_ns):
        cdef const Terms* terms
        cdef Hold* hold
        cdef Moment at
        cdef int64_t extra
        cdef bint looked = False
        cdef int i
        if self.settled or self.limits is None:
            return False
        self.settled = True
        if not self.limits.trues_up:
            return True
        for i in range(self.held):
            hold = &self.holds[i]
            terms = &self.limits.terms[hold.rule]
            if terms.unit == REQUESTS or terms.unit >= CONCURRENT:
                continue
            extra = counted(terms.unit, input, output, cost) - hold.count
            if extra:
                if not looked:
                    self.limits.table.moment(now_ns, &at)
                    looked = True
                self.correct(hold, terms, extra, &at)
        return True

    cdef int correct(self, Hold* hold, const Terms* terms, int64_t extra, const Moment* at) noexcept:
        """Take or give back the difference between what was reserved and what it was."""
        cdef Table table = self.limits.table
        cdef Hold more = hold[0]
        cdef int64_t cost
        cdef bint still = True
        if extra == 0:
            return 0
        if terms.algorithm == BUCKET:
            cost = scaled(hold.count + extra, terms.cell, terms.shift)
            if hold.replicas > 1:
                cost = scaled(cost, hold.replicas, 0)
            if cost < hold.cost:
                # Not into an overflow line: it may have been full since, and what it lacks now others have spent.
                if hold.line < table.slots:
                    table.refund(hold, hold.cost - cost)
            elif cost > hold.cost:
                # Found anew: if the line has gone to another subject, this one's bucket was full and starts from there.
                more.cost = cost - hold.cost
                charge(table, &more, terms, at.units, True)
        elif extra < 0:
            still = take_out(table, hold, terms, -extra, at)
        else:
            more.count = extra
            more.crossed = 0
            count_in(table, &more, terms, at, max(terms.room // hold.replicas, 1), True)
            if more.crossed:
                self.notice(&more)
        if hold.lent:
            if extra < 0:
                # Where it was taken from is forgotten: so it is where the limit is kept.
                if still:
                    repay_lease(table, hold.tag, -extra, terms.room, at)
            else:
                more.count = extra
                spend_lease(table, &more, terms, at, True)
        return 0

    cdef void drop(self, Hold* hold, const Terms* terms, const Moment* at) noexcept:
        """Give all back that was taken by one rule."""
        if terms.unit >= CONCURRENT:
            self.limits.table.leave(hold, self.worker)
        elif self.granted:
            self.correct(hold, terms, -hold.count, at)
        else:
            # A decision that failed as a whole: nothing can have happened to the line since.
            if terms.algorithm == BUCKET:
                self.limits.table.refund(hold, hold.cost)
            else:
                take_out(self.limits.table, hold, terms, hold.count, at)
            if hold.lent:
                repay_lease(self.limits.table, hold.tag, hold.count, terms.room, at)

    cdef bint undo(self, int64_t now_ns):
        cdef Moment at
        cdef int i
        if self.settled or self.limits is None:
            return False
        self.settled = True
        if self.held:
            self.limits.table.moment(now_ns, &at)
        for i in range(self.held):
            if self.limits.terms[self.holds[i].rule].unit < CONCURRENT:
                self.drop(&self.holds[i], &self.limits.terms[self.holds[i].rule], &at)
        return True

    cdef bint leave(self):
        cdef int i
        if self.released or self.limits is None:
            return False
        self.released = True
        if not self.limits.has_gates:
            return True
        for i in range(self.held):
            if self.limits.terms[self.holds[i].rule].unit >= CONCURRENT:
                self.limits.table.leave(&self.holds[i], self.worker)
        return True

    cdef Rule more(self, int64_t output, int64_t cost, int64_t now_ns, int64_t read=0):
        cdef Hold[MAX_HELD] added
        cdef const Terms* terms
        cdef Hold* hold
        cdef Moment at
        cdef int i, verdict = TAKEN, last = -1
        if self.settled or self.limits is None or self.held == 0:
            return None
        self.limits.table.moment(now_ns, &at)
        for i in range(self.held):
            terms = &self.limits.terms[self.holds[i].rule]
            added[i] = self.holds[i]
            added[i].count = 0 if terms.unit == REQUESTS else counted(terms.unit, read, output, cost)
            if terms.unit >= CONCURRENT or added[i].count == 0:
                added[i].count = 0
                continue
            added[i].crossed = 0
            verdict = self.limits.decide(&added[i], terms, &at)
            if added[i].crossed:
                self.notice(&added[i])
            if verdict != TAKEN:
                last = i
                break
        if last >= 0:
            self.retry_after_ns = wait_of(&added[last], terms, verdict)
            self.shortages = missing_of(self.limits, &added[last], verdict, &at)
            for i in range(last):
                if added[i].count:
                    self.correct(&added[i], &self.limits.terms[added[i].rule], -added[i].count, &at)
            return <Rule>self.limits.rules[added[last].rule]
        for i in range(self.held):
            hold = &self.holds[i]
            if added[i].count:
                # Given back later to where the first part was taken from: that is forgotten first.
                hold.count += added[i].count
                hold.cost = plus(hold.cost, added[i].cost)
        self.ask.input = plus(self.ask.input, max(read, 0))
        self.ask.output = plus(self.ask.output, max(output, 0))
        self.ask.cost = plus(self.ask.cost, max(cost, 0))
        return None

    cdef Rule go(self, uint64_t upstream, int64_t now_ns):
        cdef const Terms* terms
        cdef Moment at
        cdef int i, kept_to = 0, begun, refused
        if self.settled or self.released or self.limits is None or upstream == self.ask.subjects[AT_UPSTREAM]:
            return None
        self.ask.subjects[AT_UPSTREAM] = upstream
        if not self.limits.counts & PER_UPSTREAM:
            return None
        self.limits.table.moment(now_ns, &at)
        for i in range(self.held):
            terms = &self.limits.terms[self.holds[i].rule]
            if of_upstream(terms):
                self.drop(&self.holds[i], terms, &at)
            else:
                self.holds[kept_to] = self.holds[i]
                kept_to += 1
        self.held = begun = kept_to
        refused = self.limits.gather(self, &at, True)
        if refused < 0:
            return None
        terms = &self.limits.terms[refused & 0xFFFF]
        self.retry_after_ns = wait_of(&self.holds[self.held], terms, refused >> 16)
        self.closed = refused >> 16 == SHUT
        self.shortages = missing_of(self.limits, &self.holds[self.held], refused >> 16, &at)
        for i in range(begun, self.held):
            self.drop(&self.holds[i], &self.limits.terms[self.holds[i].rule], &at)
        self.held = begun
        self.ask.subjects[AT_UPSTREAM] = 0
        return <Rule>self.limits.rules[refused & 0xFFFF]

    def settle(self, int64_t input_tokens, int64_t output_tokens, int64_t cost, int64_t now_ns):
        """Replace the estimates by the truth; see ``limit.pyi``. Raises ValueError on a number below 0."""
        if input_tokens < 0 or output_tokens < 0 or cost < 0 or now_ns < 0:
            raise ValueError(f"expected tokens, cost and now_ns of 0 or more, got {input_tokens}, {output_tokens}, "
                             f"{cost} and {now_ns}")
        return self.true_up(input_tokens, output_tokens, cost, now_ns)

    def extend(self, int64_t output_tokens, int64_t cost, int64_t now_ns, int64_t input_tokens=0):
        """Reserve more for an answer that goes on; see ``limit.pyi``. Raises ValueError on a number below 0."""
        if output_tokens < 0 or cost < 0 or now_ns < 0 or input_tokens < 0:
            raise ValueError(f"expected tokens, cost and now_ns of 0 or more, got {output_tokens}, {cost}, {now_ns} "
                             f"and {input_tokens}")
        return self.more(output_tokens, cost, now_ns, input_tokens)

    def move(self, uint64_t upstream, int64_t now_ns):
        """The exchange goes on at another upstream; see ``limit.pyi``."""
        return self.go(upstream, now_ns)

    def cancel(self, int64_t now_ns):
        """Give back all but the concurrency slots: nothing was sent upstream. Counts as the settlement."""
        return self.undo(now_ns)

    def release(self):
        """Give back the concurrency slots. True the first time only. Also happens when the grant is deallocated."""
        return self.leave()
