// The only code that touches a page which another domain can write.
// Every access is volatile, so the compiler can neither repeat nor drop it (XSA-155, XSA-478).
#ifndef RINGBACK_CSHARED_H
#define RINGBACK_CSHARED_H

#include <stddef.h>
#include <stdint.h>

/// Copies `count` bytes out of shared memory into private memory, reading each byte once.
static inline void shared_copy_in(void *destination, const volatile void *source, size_t count) {
  unsigned char *to = (unsigned char *)destination;
  const volatile unsigned char *from = (const volatile unsigned char *)source;
  // Ring slots are 4-byte aligned in every ABI, so whole words are the common case.
  if ((((uintptr_t)to | (uintptr_t)from) & 3) == 0)
    for (; count >= 4; count -= 4, to += 4, from += 4)
      __builtin_memcpy(to, &(uint32_t){*(const volatile uint32_t *)from}, 4);
  for (; count > 0; count--) *to++ = *from++;
}

/// Copies `count` bytes of private memory into shared memory, writing each byte once.
static inline void shared_copy_out(volatile void *destination, const void *source, size_t count) {
  volatile unsigned char *to = (volatile unsigned char *)destination;
  const unsigned char *from = (const unsigned char *)source;
  if ((((uintptr_t)to | (uintptr_t)from) & 3) == 0)
    for (; count >= 4; count -= 4, to += 4, from += 4) {
      uint32_t word;
      __builtin_memcpy(&word, from, 4);
      *(volatile uint32_t *)to = word;
    }
  for (; count > 0; count--) *to++ = *from++;
}

/// Copies page data (not decisions) between shared and private memory at full speed. The barrier on both
/// sides keeps the compiler from moving or repeating it; nothing may be decided on the shared side's bytes.
static inline void shared_copy_data(void *destination, const void *source, size_t count) {
  __asm__ volatile("" ::: "memory");
  __builtin_memcpy(destination, source, count);
  __asm__ volatile("" ::: "memory");
}

static inline uint32_t shared_load_acquire(const volatile uint32_t *word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline uint32_t shared_load_relaxed(const volatile uint32_t *word) {
  return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void shared_store_release(volatile uint32_t *word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline void shared_store_relaxed(volatile uint32_t *word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/// Store-load ordering for the final check and the notify test (ring.h: `mb()`).
static inline void shared_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#endif
