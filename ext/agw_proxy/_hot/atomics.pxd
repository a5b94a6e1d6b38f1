"""Atomic operations on words that processes share, by the compiler's ``__atomic_*`` builtins.

All but ``unlock`` are sequentially consistent: the protocols of ``limit`` rest on "I wrote mine before I read yours",
which weaker orders do not give, and on x86 a locked instruction costs the same either way. Who gives a lock back has
only to have written before, which there takes no locked instruction.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <sched.h>
    #include <stdint.h>

    #ifndef AGW_ATOMICS
    #define AGW_ATOMICS
    #define AGW_SEQ __ATOMIC_SEQ_CST
    static inline uint64_t agw_load(const uint64_t *p) { return __atomic_load_n(p, AGW_SEQ); }
    static inline int64_t agw_load_signed(const int64_t *p) { return __atomic_load_n(p, AGW_SEQ); }
    static inline void agw_store(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, AGW_SEQ); }
    static inline void agw_store_signed(int64_t *p, int64_t v) { __atomic_store_n(p, v, AGW_SEQ); }
    static inline void agw_unlock(uint64_t *p) { __atomic_store_n(p, 0, __ATOMIC_RELEASE); }
    static inline uint64_t agw_swap(uint64_t *p, uint64_t v) { return __atomic_exchange_n(p, v, AGW_SEQ); }
    static inline void agw_set_bits(uint64_t *p, uint64_t v) { __atomic_or_fetch(p, v, AGW_SEQ); }
    static inline uint64_t agw_add(uint64_t *p, uint64_t v) { return __atomic_add_fetch(p, v, AGW_SEQ); }
    static inline int agw_cas(uint64_t *p, uint64_t was, uint64_t v) {
        return __atomic_compare_exchange_n(p, &was, v, 0, AGW_SEQ, AGW_SEQ);
    }
    static inline int agw_cas_signed(int64_t *p, int64_t was, int64_t v) {
        return __atomic_compare_exchange_n(p, &was, v, 0, AGW_SEQ, AGW_SEQ);
    }
    static inline uint32_t agw_load_half(const uint32_t *p) { return __atomic_load_n(p, AGW_SEQ); }
    static inline void agw_increment_half(uint32_t *p) { __atomic_add_fetch(p, 1, AGW_SEQ); }
    static inline uint16_t agw_load_short(const uint16_t *p) { return __atomic_load_n(p, AGW_SEQ); }
    static inline uint16_t agw_swap_short(uint16_t *p, uint16_t v) { return __atomic_exchange_n(p, v, AGW_SEQ); }
    static inline void agw_increment_short(uint16_t *p) { __atomic_add_fetch(p, 1, AGW_SEQ); }
    static inline void agw_decrement_short(uint16_t *p) { __atomic_sub_fetch(p, 1, AGW_SEQ); }
    /* The sum of 8-byte aligned shorts, four a load: each of them is read whole, though not all in one instant. */
    typedef uint64_t __attribute__((may_alias)) agw_four_shorts;
    static inline int64_t agw_sum_shorts(const uint16_t *p, int count) {
        uint64_t sum = 0;
        for (int i = 0; i < count / 4; i++) {
            uint64_t four = __atomic_load_n((const agw_four_shorts *)p + i, AGW_SEQ);
            sum += (four & 0x0000FFFF0000FFFFu) + ((four >> 16) & 0x0000FFFF0000FFFFu);
        }
        return (int64_t)((sum & 0xFFFFFFFFu) + (sum >> 32));
    }

    /* Called with the number of times the caller has looked in vain: spin first, then let another process run. */
    static inline void agw_relax(int turn) {
        if (turn % 64 == 63) { sched_yield(); return; }
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ __volatile__("yield");
    #endif
    }
    #endif
    """
    uint64_t load "agw_load"(const uint64_t* word) noexcept nogil
    int64_t load_signed "agw_load_signed"(const int64_t* word) noexcept nogil
    void store "agw_store"(uint64_t* word, uint64_t value) noexcept nogil
    void store_signed "agw_store_signed"(int64_t* word, int64_t value) noexcept nogil
    void unlock "agw_unlock"(uint64_t* word) noexcept nogil
    uint64_t swap "agw_swap"(uint64_t* word, uint64_t value) noexcept nogil
    void set_bits "agw_set_bits"(uint64_t* word, uint64_t bits) noexcept nogil
    uint64_t add "agw_add"(uint64_t* word, uint64_t value) noexcept nogil
    bint cas "agw_cas"(uint64_t* word, uint64_t was, uint64_t value) noexcept nogil
    bint cas_signed "agw_cas_signed"(int64_t* word, int64_t was, int64_t value) noexcept nogil
    uint32_t load_half "agw_load_half"(const uint32_t* word) noexcept nogil
    void increment_half "agw_increment_half"(uint32_t* word) noexcept nogil
    uint16_t load_short "agw_load_short"(const uint16_t* word) noexcept nogil
    uint16_t swap_short "agw_swap_short"(uint16_t* word, uint16_t value) noexcept nogil
    void increment_short "agw_increment_short"(uint16_t* word) noexcept nogil
    void decrement_short "agw_decrement_short"(uint16_t* word) noexcept nogil
    int64_t sum_shorts "agw_sum_shorts"(const uint16_t* shorts, int count) noexcept nogil
    void relax "agw_relax"(int turn) noexcept nogil
