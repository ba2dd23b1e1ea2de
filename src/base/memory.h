// How much memory there is for this process, and how much it took at most.
#ifndef MM_BASE_MEMORY_H
#define MM_BASE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

// Bytes this process may still take without swapping: what the kernel calls available, or what its
// container allows, whichever is smaller. An estimate, true at the moment of the call.
int64_t mm_memory_available(void);

// Bytes of memory that this process has resident now, files it maps included.
int64_t mm_memory_used(void);

// Bytes of memory that this process has had resident at most, files it maps included.
int64_t mm_memory_peak(void);

// Lets mm_memory_peak start again from what is resident now; false where the kernel does not.
bool mm_memory_peak_reset(void);

#endif
