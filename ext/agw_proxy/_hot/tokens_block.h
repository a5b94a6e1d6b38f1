/* The scanner proper; included by tokens_scan.h once for each kind of machine, with EACH naming its functions and WIDE
 * saying whether they may use AVX2. */

#if WIDE
#define BITS(x) ((uint64_t)(uint32_t)_mm256_movemask_epi8(x))
#define UP_TO(x, most) _mm256_cmpeq_epi8(_mm256_min_epu8(x, _mm256_set1_epi8(most)), x)

TARGET static inline Masks EACH(classify)(const uint8_t *at) {
    Masks m = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int half = 0; half < BLOCK; half += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(at + half));
        __m256i low = _mm256_or_si256(x, _mm256_set1_epi8(0x20));
        uint64_t letter = BITS(UP_TO(_mm256_sub_epi8(low, _mm256_set1_epi8('a')), 25));
        m.letter |= letter << half;
        m.upper |= (letter & ~BITS(_mm256_slli_epi16(x, 2))) << half;
        m.digit |= BITS(UP_TO(_mm256_sub_epi8(x, _mm256_set1_epi8('0')), 9)) << half;
        m.white |= BITS(UP_TO(x, ' ')) << half;
        m.quote |= BITS(_mm256_cmpeq_epi8(x, _mm256_set1_epi8('"'))) << half;
        m.escape |= BITS(_mm256_cmpeq_epi8(x, _mm256_set1_epi8('\\'))) << half;
        m.open |= BITS(_mm256_cmpeq_epi8(low, _mm256_set1_epi8('{'))) << half;
        m.close |= BITS(_mm256_cmpeq_epi8(low, _mm256_set1_epi8('}'))) << half;
        m.high |= BITS(x) << half;
    }
    return m;
}

/* The bytes from `first` to `last`. */
TARGET static inline uint64_t EACH(span)(const uint8_t *at, uint8_t first, uint8_t last) {
    uint64_t mask = 0;
    for (int half = 0; half < BLOCK; half += 32) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(at + half));
        mask |= BITS(UP_TO(_mm256_sub_epi8(x, _mm256_set1_epi8((char)first)), (char)(last - first))) << half;
    }
    return mask;
}

TARGET static inline uint64_t EACH(ones)(uint64_t mask) { return (uint64_t)__builtin_popcountll(mask); }
#else
static inline Masks EACH(classify)(const uint8_t *at) {
    Masks m = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int i = 0; i < BLOCK; i += 8) {
        uint64_t x = 0, high = 0, t;
        for (int j = 0; j < 8; j++) {
            x |= (uint64_t)CLASSES[at[i + j]] << (8 * j);
            high |= (uint64_t)(at[i + j] >> 7) << j;
        }
        /* Eight bytes of eight class bits, turned over: eight masks of eight bytes. */
        t = (x ^ (x >> 7)) & 0x00AA00AA00AA00AAull, x ^= t ^ (t << 7);
        t = (x ^ (x >> 14)) & 0x0000CCCC0000CCCCull, x ^= t ^ (t << 14);
        t = (x ^ (x >> 28)) & 0x00000000F0F0F0F0ull, x ^= t ^ (t << 28);
        m.letter |= (x & 0xFF) << i, m.upper |= (x >> 8 & 0xFF) << i;
        m.digit |= (x >> 16 & 0xFF) << i, m.white |= (x >> 24 & 0xFF) << i;
        m.quote |= (x >> 32 & 0xFF) << i, m.escape |= (x >> 40 & 0xFF) << i;
        m.open |= (x >> 48 & 0xFF) << i, m.close |= (x >> 56) << i;
        m.high |= high << i;
    }
    return m;
}

/* Without the machine's own instruction the compiler would call a function for each. */
static inline uint64_t EACH(ones)(uint64_t x) {
    x -= x >> 1 & 0x5555555555555555ull;
    x = (x & 0x3333333333333333ull) + (x >> 2 & 0x3333333333333333ull);
    return ((x + (x >> 4)) & 0x0F0F0F0F0F0F0F0Full) * 0x0101010101010101ull >> 56;
}
#endif

/* Follows the keys of one block, and gives the bytes of it that are read. `size` is shortened where a value is passed
 * over: then `*skip` is set, and the rest of its string is not looked at. */
TARGET static inline uint64_t EACH(read)(
    Scan *s, const uint8_t *at, size_t room, const Masks *m, uint64_t quotes, uint64_t strings, int *size, int *skip
) {
    uint64_t inner = strings & ~quotes, outer = ~strings & ~quotes;
    uint64_t closing = quotes & ~strings & below(*size), opening = quotes & strings;
    uint64_t open = m->open & outer, close = m->close & outer;
    uint64_t whole = ~(m->white & outer), keep = 0;
    int from = 0;
    /* Inside tools, arguments and what is passed over no key matters but one further out. */
    if (s->hold || s->top != STRINGS) {
        int least = s->depth - (int)EACH(ones)(close & below(*size));
        if (least > (s->top == STRINGS ? s->hold : 1)) closing = 0;
    }
#define KEEP(to) keep |= below(to) & ~below(from) & (s->kind == ALL ? whole : s->kind == STRINGS ? inner : 0)
    for (; closing; closing &= closing - 1) {
        int end = __builtin_ctzll(closing), next = end + 1;
        while ((size_t)next < room && at[next] <= ' ') next++;
        if ((size_t)next >= room || at[next] != ':') continue;
        int depth = s->depth + (int)EACH(ones)(open & below(end)) - (int)EACH(ones)(close & below(end));
        if (depth > 1 && s->top != STRINGS) continue;
        if (depth > 1 && s->hold && depth > s->hold) continue;
        uint64_t before = opening & below(end);
        int start = before ? 63 - __builtin_clzll(before) : 0, length = before ? end - start - 1 : 0;
        uint64_t name = name_of(at + start + 1, length);
        uint8_t value = 0;
        for (next++; (size_t)next < room; next++)
            if ((value = at[next]) > ' ') break;
        KEEP(start);
        from = end + 1;
        if (depth <= 1) {
            s->hold = 0;
            switch (name) {
            case NAME('s', 'y', 's', 't', 'e', 'm', 0, 0):
            case NAME('s', 'y', 's', 't', 'e', 'm', 'I', 'n'):
            case NAME('s', 'y', 's', 't', 'e', 'm', '_', 'i'):
            case NAME('i', 'n', 's', 't', 'r', 'u', 'c', 't'):
            case NAME('p', 'r', 'o', 'm', 'p', 't', 0, 0):
                s->count[F_MESSAGE]++;
                s->count[F_ID] += value == '[' ? ids_in(at + next, room - (size_t)next) : 0;
                s->top = STRINGS;
                break;
            case NAME('i', 'n', 'p', 'u', 't', 0, 0, 0):
                s->count[F_MESSAGE] += value == '"';
                s->count[F_ID] += value == '[' ? ids_in(at + next, room - (size_t)next) : 0;
                s->top = STRINGS;
                break;
            case NAME('m', 'e', 's', 's', 'a', 'g', 'e', 's'):
            case NAME('c', 'o', 'n', 't', 'e', 'n', 't', 's'):
                s->top = STRINGS;
                break;
            case NAME('t', 'o', 'o', 'l', 's', 0, 0, 0):
            case NAME('f', 'u', 'n', 'c', 't', 'i', 'o', 'n'):
            case NAME('r', 'e', 's', 'p', 'o', 'n', 's', 'e'):
            case NAME('t', 'e', 'x', 't', 0, 0, 0, 0):
                s->top = ALL;
                break;
            default:
                /* Spelt with escapes, it may be any of these. So may a key as long as that makes one. */
                s->top = !before || (m->escape & below(end) & ~below(start)) ? STRINGS : NOTHING;
            }
            s->kind = s->top;
        } else {
            s->hold = 0;
            s->kind = STRINGS;
            if (name == NAME('r', 'o', 'l', 'e', 0, 0, 0, 0)) s->count[F_MESSAGE]++;
            if (is_silent(name, at + end - 1, length)) {
                s->kind = NOTHING;
                if (value == '{' || value == '[') s->hold = depth;
            } else if (is_media(name)) {
                s->kind = NOTHING;
                if (value == '"') {
                    s->count[F_IMAGE]++;
                    if (next < BLOCK) {
                        *size = next + 1, *skip = 1;
                        closing = 0;
                        break;
                    }
                }
            } else if (value == '{' && is_object(name)) {
                s->kind = ALL, s->hold = depth;
            }
        }
    }
    KEEP(*size);
#undef KEEP
    s->depth += (int)EACH(ones)(open & below(*size)) - (int)EACH(ones)(close & below(*size));
    return keep;
}

/* One block of `size` bytes, of which `room` are readable; returns how many it took. Sets `*skip` where the string
 * that is open then is to be passed over. */
TARGET static inline int EACH(block)(Scan *s, const uint8_t *at, int size, size_t room, int *skip) {
    Masks m = EACH(classify)(at);
    int whole = size == BLOCK;
    uint64_t escaped = 0, lines = 0, blanks = 0, marks = 0, slack = 0, word = 0, gone = 0, coded = 0;
    if (whole && at[BLOCK - 1] >= 0xC0) size = BLOCK - 1;   /* a lead byte is read with the byte after it */
    for (uint64_t e = m.escape & below(size); e;) {
        int i = __builtin_ctzll(e);
        uint64_t bits = 3ull << i;
        if (i + 1 >= size) {
            if (whole) size = i;
            break;
        }
        uint8_t c = at[i + 1];
        escaped |= 2ull << i;
        e &= ~bits;
        if (c == 'n' || c == 'r') {
            lines |= bits;
        } else if (c == 'u') {
            if (i + 6 > size) {
                if (whole) size = i;
                break;
            }
            coded |= 1ull << i;
            gone |= 63ull << i;
            slack |= 62ull << i;
        } else if (c == 't' || c == 'b' || c == 'f') {
            blanks |= bits;
        } else {
            slack |= 1ull << i;
        }
    }
    uint64_t quotes = m.quote & ~escaped & below(size), strings = quotes;
    if (quotes)
        for (int k = 1; k < 64; k <<= 1) strings ^= strings << k;
    if (s->inside) strings = ~strings;
    uint64_t opening = quotes & strings;
    if (whole && opening && (strings >> (size - 1) & 1)) {
        int last = 63 - __builtin_clzll(opening);
        if (last >= NEAR && last < size) {
            size = last;
            quotes &= below(size);
        }
    }
    uint64_t keep;
    if (quotes | (~strings & below(size))) keep = EACH(read)(s, at, room, &m, quotes, strings, &size, skip);
    else keep = s->kind == NOTHING ? 0 : below(size);
    s->inside = (int)(strings >> (size - 1) & 1);

    uint64_t *count = s->count;
    int rest = 64 - size;
    if (keep) {
        uint64_t two = 0;
        for (uint64_t u = coded & keep; u; u &= u - 1) {
            int i = __builtin_ctzll(u);
            int32_t code = four_hex(at + i + 2);
            int plane = code < 0x80 ? -1 : plane_of((uint32_t)code);
            if (code < 0x80) marks |= 63ull << i;
            else if (plane >= F_LATIN && plane <= F_SEMITIC) word |= 63ull << i;
            if (plane >= 0) count[plane]++;
        }
        if (m.high & keep) {
            uint64_t planes = 0, left = m.high & keep;
#if WIDE    /* what East Asia writes is counted at once, and only the rest one by one */
            uint64_t han = EACH(span)(at, 0xE4, 0xE9) & left, hangul = EACH(span)(at, 0xEA, 0xED) & left;
            uint64_t kana = EACH(span)(at, 0xE3, 0xE3) & left, stop = kana & EACH(span)(at, 0x80, 0x80) >> 1;
            count[F_HAN] += EACH(ones)(han);
            count[F_HANGUL] += EACH(ones)(hangul);
            count[F_STOP] += EACH(ones)(stop);
            count[F_KANA] += EACH(ones)(kana & ~stop);
            left &= EACH(span)(at, 0xC0, 0xFF) & ~(han | hangul | kana);
#endif
            for (uint64_t h = left; h; h &= h - 1) {
                int i = __builtin_ctzll(h);
                uint8_t c = at[i];
                if (c < 0xC0) continue;
                planes += 1ull << (c == 0xE3 && at[i + 1] == 0x80 ? PLANE_SHIFT(F_STOP) : PLANES[c]);
                two |= (uint64_t)(c < 0xE0 && c > 0xC2) << i;
            }
            for (int plane = F_LATIN; planes && plane <= F_EMOJI; plane++) count[plane] += planes >> PLANE_SHIFT(plane) & 63;
            two |= two << 1;
        }
#define AFTER(mask, before) ((mask) << 1 | s->before >> 63)
        gone |= lines | blanks;
        uint64_t w = ((m.letter & ~gone) | two | word) & keep;
        uint64_t d = m.digit & ~gone & keep;
        uint64_t p = (~(m.letter | m.digit | m.white | m.high | gone) | marks) & keep;
        uint64_t blank = ((m.white & ~gone) | blanks) & keep;
        uint64_t line = lines & keep;
        uint64_t upper = m.upper & w, small = m.letter & w & ~upper;
        uint64_t after_w = AFTER(w, letter), after_p = AFTER(p | (m.white & ~strings), mark), after_b = AFTER(blank, white);
        uint64_t start = w & ~after_w;
        count[F_WORD] += EACH(ones)(start);
        count[F_TITLE] += EACH(ones)(start & upper);
        count[F_CAMEL] += EACH(ones)(upper & AFTER(small, small));
        unsigned __int128 run = (unsigned __int128)w << 64 | s->letter;
        unsigned __int128 run2 = run & run << 1, run4 = run2 & run2 << 2, run8 = run4 & run4 << 4;
        count[F_LONG4] += EACH(ones)((uint64_t)((run & run4 << 1) >> 64) & ~slack);
        count[F_LONG8] += EACH(ones)((uint64_t)((run & run8 << 1) >> 64) & ~slack);
        if (d) {
            uint64_t after_d = AFTER(d, digit), group = d & ~after_d, three = d & d << 1 & d << 2;
            uint64_t others = ~(d << rest);
            int left = (3 - s->phase) % 3, tail = others ? __builtin_clzll(others) : 64;
            count[F_SPACE_DIGIT] += EACH(ones)(group & after_b);
            if (d & after_d & 1) {                  /* a number goes on: the group it is in ends `left` digits on */
                if (!(~d & below(left + 1))) group |= 1ull << left;
            }
            s->phase = tail >= size && (after_d & 1) ? (s->phase + size) % 3 : tail % 3;
            for (; group; group = group << 3 & three) count[F_DIGITS] += EACH(ones)(group);
        }
        uint64_t runs = EACH(ones)(p & ~after_p);
        count[F_MARK] += runs;
        count[F_MARKS] += EACH(ones)(p & ~slack) - runs;
        count[F_MARK_WORD] += EACH(ones)(w & AFTER(p, point));
        if (line) {
            uint64_t first = line & ~AFTER(line, line);
            count[F_LINE] += EACH(ones)(first);
            count[F_MARK_LINE] += EACH(ones)(first & after_p);
        }
        uint64_t wide = blank & after_b;
        count[F_INDENT] += EACH(ones)(wide & ~AFTER(wide, wide));
        s->letter = w << rest, s->digit = d << rest, s->white = blank << rest, s->wide = wide << rest;
        s->mark = (p | (m.white & ~strings)) << rest, s->point = p << rest;
        s->small = small << rest, s->line = line << rest;
#undef AFTER
    } else {
        s->letter = s->digit = s->point = s->white = s->wide = s->line = s->small = 0;
        s->mark = (m.white & ~strings) << rest;
    }
    return size;
}

/* Counts the features of `length` bytes at `at`. */
TARGET static void EACH(scan)(const uint8_t *at, size_t length, uint64_t *count) {
    Scan s;
    const uint8_t *end = at + length;
    memset(&s, 0, sizeof s);
    while (at < end) {
        size_t room = (size_t)(end - at);
        const uint8_t *from = at;
        uint8_t last[BLOCK + 2 * MARGIN];
        int skip = 0;
        if (room < BLOCK + MARGIN) {
            memset(last, ' ', sizeof last);
            memcpy(last, at, room);
            from = last;
        }
        at += EACH(block)(&s, from, room < BLOCK ? (int)room : BLOCK, room, &skip);
        if (skip) {
            at = memchr(at, '"', (size_t)(end - at));
            if (!at) break;
            s.inside = 1;
        }
    }
    memcpy(count, s.count, sizeof s.count);
}

#if WIDE
#undef BITS
#undef UP_TO
#endif
