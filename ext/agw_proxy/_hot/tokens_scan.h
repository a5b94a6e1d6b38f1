/* The scanner of tokens.pyx: a request's JSON text, 64 bytes at a time, as bit masks of character classes.
 *
 * In C and not in Cython, because one text is compiled twice: for AVX2, and for any machine (tokens_block.h is the
 * text, included below under two names). Each block becomes one 64-bit mask a class; where a string begins, how long a
 * word is and what follows what are then shifts of masks, and a count is a popcount. Structure is walked key by key:
 * it decides which bytes the model will read.
 *
 * Safe on any bytes, JSON or not: no read beyond `end`, every block goes on by at least one byte. */
#ifndef AGW_TOKENS_SCAN_H
#define AGW_TOKENS_SCAN_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define AGW_AVX2 1
#include <immintrin.h>
#else
#define AGW_AVX2 0
#endif

/* What is counted. */
enum {
    F_WORD,         /* runs of letters */
    F_TITLE,        /* ... that begin with a capital */
    F_CAMEL,        /* capitals after a small letter */
    F_LONG4,        /* letters with 4 or more of the same run before them */
    F_LONG8,
    F_DIGITS,       /* groups of up to three digits */
    F_SPACE_DIGIT,  /* numbers after a space */
    F_MARK,         /* runs of punctuation */
    F_MARKS,        /* characters of such runs after the first */
    F_MARK_WORD,    /* a letter right after punctuation */
    F_LINE,         /* runs of line breaks */
    F_MARK_LINE,    /* ... right after punctuation */
    F_INDENT,       /* runs of two or more spaces or tabs */
    F_LATIN,        /* letters of two bytes, U+00C0 to U+037F */
    F_GREEK,        /* ... to U+057F: Greek, Cyrillic, Armenian */
    F_SEMITIC,      /* ... to U+07FF: Hebrew, Arabic and their kin */
    F_INDIC,        /* U+0800 to U+1FFF: India's scripts, Thai, Georgian */
    F_SYMBOL,       /* U+0080 to U+00BF, U+2000 to U+2FFF, and full-width forms */
    F_STOP,         /* U+3000 to U+303F: CJK punctuation */
    F_KANA,         /* U+3040 to U+3FFF */
    F_HAN,          /* U+4000 to U+9FFF */
    F_HANGUL,       /* U+A000 to U+DFFF */
    F_EMOJI,        /* from U+10000 on */
    F_ID,           /* tokens that are given as such, by their numbers */
    F_MESSAGE,      /* messages, and texts that become one */
    F_IMAGE,        /* images, recordings and files, whatever their size */
    FEATURES
};

enum {
    UNIT = 1024,            /* weights are in 1/1024 token */
    IMAGE_TOKENS = 765,     /* what o200k's first models count for 1024 x 1024 in high detail */
    MESSAGE_TOKENS = 4,     /* the marks around a message, and its role */
    REPLY_TOKENS = 3        /* the mark that the answer is to follow */
};

/* Fitted by least squares to o200k_base (docs/tokens.md); those of rare scripts and emoji set by hand. */
static const int64_t WEIGHTS[FEATURES] = {
    [F_WORD] = 875, [F_TITLE] = 359, [F_CAMEL] = 50, [F_LONG4] = 85, [F_LONG8] = 61, [F_DIGITS] = 1069,
    [F_SPACE_DIGIT] = 1018, [F_MARK] = 1029, [F_MARKS] = 212, [F_MARK_WORD] = -408, [F_LINE] = 1297,
    [F_MARK_LINE] = -1151, [F_INDENT] = 789, [F_LATIN] = 1398, [F_GREEK] = -18, [F_SEMITIC] = 113,
    [F_INDIC] = 410, [F_SYMBOL] = 531, [F_STOP] = 476, [F_KANA] = 718, [F_HAN] = 803, [F_HANGUL] = 736,
    [F_EMOJI] = 1536, [F_ID] = UNIT, [F_MESSAGE] = MESSAGE_TOKENS * UNIT, [F_IMAGE] = IMAGE_TOKENS * UNIT,
};

#define BLOCK 64
#define MARGIN 16       /* readable bytes after a block, so that a name may be loaded whole */
#define NEAR 24         /* a string that begins behind this and does not end in its block begins the next one */

typedef struct {
    uint64_t letter, upper, digit, white, quote, escape, open, close, high;
} Masks;

/* What of a request is read by the model. */
enum { NOTHING, STRINGS, ALL };

typedef struct {
    int inside;         /* a string goes on */
    int top;            /* what the top-level key stands for: NOTHING, STRINGS, or ALL */
    int kind;           /* what is counted now */
    int depth;          /* of open braces and brackets */
    int hold;           /* depth of the key whose whole value is counted or not, 0 for none */
    int phase;          /* digits modulo 3 of the number at the end of the previous block */
    uint64_t letter, small, digit, mark, point, white, wide, line;     /* the previous block, its end in the top bit */
    uint64_t count[FEATURES];
} Scan;

/* Characters of more than one byte fall into planes, from F_LATIN to F_EMOJI. A block has at most 32 of them, so that
 * ten counts of six bits fit into one word. */
#define PLANE_SHIFT(plane) (6 * ((plane) - F_LATIN))

/* The plane of a code point, -1 for the second half of a pair. */
static inline int plane_of(uint32_t code) {
    if (code < 0xC0) return F_SYMBOL;
    if (code < 0x380) return F_LATIN;
    if (code < 0x580) return F_GREEK;
    if (code < 0x800) return F_SEMITIC;
    if (code < 0x2000) return F_INDIC;
    if (code < 0x3000) return F_SYMBOL;
    if (code < 0x3040) return F_STOP;
    if (code < 0x4000) return F_KANA;
    if (code < 0xA000) return F_HAN;
    if (code < 0xD800) return F_HANGUL;
    if (code < 0xDC00) return F_EMOJI;
    return code < 0xE000 ? -1 : F_SYMBOL;
}

/* The plane of a lead byte. E3 80 is CJK punctuation, E3 with another second byte mostly kana. */
static uint8_t PLANES[256];

/* Classes of the ASCII bytes for machines without wide compares; bit n is the n-th mask of Masks. */
enum { C_LETTER = 1, C_UPPER = 2, C_DIGIT = 4, C_WHITE = 8, C_QUOTE = 16, C_ESCAPE = 32, C_OPEN = 64, C_CLOSE = 128 };
static uint8_t CLASSES[256];

static void fill_tables(void) {
    for (uint32_t c = 0xC0; c < 0x100; c++) {
        uint32_t least = c < 0xE0 ? (c & 0x1F) << 6 : c == 0xE0 ? 0x800 : (c & 0xF) << 12;
        int plane = c == 0xE3 ? F_KANA : c >= 0xF0 ? F_EMOJI : plane_of(least);
        PLANES[c] = (uint8_t)PLANE_SHIFT(plane < 0 ? F_EMOJI : plane);
    }
    for (int c = 0; c < 128; c++) {
        uint8_t bits = 0;
        if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') bits |= C_LETTER | ((c & 0x20) ? 0 : C_UPPER);
        if (c >= '0' && c <= '9') bits |= C_DIGIT;
        if (c <= ' ') bits |= C_WHITE;
        if (c == '"') bits |= C_QUOTE;
        if (c == '\\') bits |= C_ESCAPE;
        if (c == '{' || c == '[') bits |= C_OPEN;
        if (c == '}' || c == ']') bits |= C_CLOSE;
        CLASSES[c] = bits;
    }
}

/* The value of four hexadecimal digits, or -1. */
static inline int32_t four_hex(const uint8_t *at) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = at[i], low = c | 0x20;
        if (c >= '0' && c <= '9') value = value << 4 | (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f') value = value << 4 | (uint32_t)(low - 'a' + 10);
        else return -1;
    }
    return (int32_t)value;
}

/* The first eight bytes of a name as a number, and such numbers as constants. */
#define NAME(a, b, c, d, e, f, g, h) \
    ((uint64_t)(a) | (uint64_t)(b) << 8 | (uint64_t)(c) << 16 | (uint64_t)(d) << 24 | (uint64_t)(e) << 32 | \
     (uint64_t)(f) << 40 | (uint64_t)(g) << 48 | (uint64_t)(h) << 56)

static inline uint64_t name_of(const uint8_t *at, int length) {
    uint64_t name;
    memcpy(&name, at, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    name = __builtin_bswap64(name);
#endif
    return length >= 8 ? name : name & ((1ull << (8 * length)) - 1);
}

static inline uint64_t below(int bit) {
    return bit >= 64 ? ~0ull : (1ull << bit) - 1;
}

/* The numbers in a list, or in lists within it, up to the first thing that is neither. */
static inline uint64_t ids_in(const uint8_t *at, size_t room) {
    uint64_t count = 0;
    int before = 0;
    for (size_t i = 0; i < room; i++) {
        int digit = at[i] >= '0' && at[i] <= '9';
        if (!digit && at[i] > ' ' && at[i] != ',' && at[i] != '[' && at[i] != ']') break;
        count += (uint64_t)(digit && !before);
        before = digit;
    }
    return count;
}

/* Is that a key whose value no model reads as text? */
static inline int is_silent(uint64_t name, const uint8_t *last, int length) {
    switch (name) {
    case NAME('r', 'o', 'l', 'e', 0, 0, 0, 0):
    case NAME('t', 'y', 'p', 'e', 0, 0, 0, 0):
    case NAME('i', 'd', 0, 0, 0, 0, 0, 0):
    case NAME('s', 't', 'a', 't', 'u', 's', 0, 0):
    case NAME('d', 'e', 't', 'a', 'i', 'l', 0, 0):
    case NAME('f', 'o', 'r', 'm', 'a', 't', 0, 0):
    case NAME('m', 'e', 'd', 'i', 'a', '_', 't', 'y'):
    case NAME('s', 'i', 'g', 'n', 'a', 't', 'u', 'r'):
    case NAME('e', 'n', 'c', 'r', 'y', 'p', 't', 'e'):
    case NAME('c', 'a', 'c', 'h', 'e', '_', 'c', 'o'):
        return 1;
    default:
        return length > 3 && last[0] == 'd' && last[-1] == 'i' && last[-2] == '_';
    }
}

/* Is that a key of an image, a recording or a file, as bytes or as an address? */
static inline int is_media(uint64_t name) {
    switch (name) {
    case NAME('u', 'r', 'l', 0, 0, 0, 0, 0):
    case NAME('d', 'a', 't', 'a', 0, 0, 0, 0):
    case NAME('i', 'm', 'a', 'g', 'e', '_', 'u', 'r'):
    case NAME('f', 'i', 'l', 'e', '_', 'd', 'a', 't'):
    case NAME('f', 'i', 'l', 'e', '_', 'u', 'r', 'l'):
        return 1;
    default:
        return 0;
    }
}

/* Is that a key whose value, where it is an object, is the arguments of a call? */
static inline int is_object(uint64_t name) {
    return name == NAME('i', 'n', 'p', 'u', 't', 0, 0, 0) || name == NAME('a', 'r', 'g', 'u', 'm', 'e', 'n', 't');
}

#define EACH(name) name##_portable
#define TARGET
#define WIDE 0
#include "tokens_block.h"
#undef EACH
#undef TARGET
#undef WIDE

#if AGW_AVX2
#define EACH(name) name##_avx2
#define TARGET __attribute__((target("avx2,popcnt,bmi")))
#define WIDE 1
#include "tokens_block.h"
#undef EACH
#undef TARGET
#undef WIDE
#endif

typedef void (*Scanner)(const uint8_t *, size_t, uint64_t *);

/* The fastest scanner for this machine. */
static Scanner best_scanner(void) {
    fill_tables();
#if AGW_AVX2
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi")) return scan_avx2;
#endif
    return scan_portable;
}

#endif
