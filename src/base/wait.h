// Waiting for a word that another thread will change: spinning for a while, then sleeping.
//
// How long to spin is learned. Where spins succeed, waits are short and a sleep costs more than it
// saves; where they keep being in vain, the core is better left to whoever is being waited for, who
// may have none. Now and then a wait spins in full all the same, to find out when that has changed.
#ifndef MM_BASE_WAIT_H
#define MM_BASE_WAIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

// Of one waiter; used by one thread at a time.
struct mm_patience {
    int64_t ns;      // to spin
    uint32_t waits;  // so far
};
#define MM_PATIENT \
    { .ns = mm_spin_max_ns }  // where a waiter begins
enum { mm_spin_max_ns = 50000 };

// Spins until *word differs from `value` (equals = false) or equals it (equals = true); false when
// that did not happen in time, and the waiter should sleep. What was written before the change is
// seen after it.
bool mm_spin(_Atomic uint32_t *word, uint32_t value, bool equals, struct mm_patience *p);

// Sleeps while *word is `seen`; may return early. Wakes up to n sleepers.
void mm_futex_wait(_Atomic uint32_t *word, uint32_t seen);
void mm_futex_wake(_Atomic uint32_t *word, int n);

#endif
