// The only code that touches a page which another domain can write.
// Every access is volatile or atomic, so the compiler can neither repeat nor drop it (XSA-155, XSA-478).
#ifndef RINGBACK_CSHARED_H
#define RINGBACK_CSHARED_H

#include <stddef.h>
#include <stdint.h>

// Pieces that a copy is cut into. Slots are 4-byte aligned at best, so nothing is promised about alignment;
// wide pieces make a 112-byte request 7 loads instead of 28.
typedef unsigned char shared_vector_t __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t shared_double_t __attribute__((aligned(1), may_alias));
typedef uint32_t shared_word_t __attribute__((aligned(1), may_alias));

/// Copies `count` bytes out of shared memory into private memory, reading each byte once.
static inline void shared_copy_in(void *destination, const volatile void *source, size_t count) {
  unsigned char *to = (unsigned char *)destination;
  const volatile unsigned char *from = (const volatile unsigned char *)source;
#define SHARED_IN(type) \
  (*(type *)to = *(const volatile type *)from, to += sizeof(type), from += sizeof(type))
  for (; count >= 16; count -= 16) SHARED_IN(shared_vector_t);
  if (count & 8) SHARED_IN(shared_double_t);
  if (count & 4) SHARED_IN(shared_word_t);
  for (count &= 3; count > 0; count--) *to++ = *from++;
#undef SHARED_IN
}

/// Copies `count` bytes of private memory into shared memory, writing each byte once.
static inline void shared_copy_out(volatile void *destination, const void *source, size_t count) {
  volatile unsigned char *to = (volatile unsigned char *)destination;
  const unsigned char *from = (const unsigned char *)source;
#define SHARED_OUT(type) \
  (*(volatile type *)to = *(const type *)from, to += sizeof(type), from += sizeof(type))
  for (; count >= 16; count -= 16) SHARED_OUT(shared_vector_t);
  if (count & 8) SHARED_OUT(shared_double_t);
  if (count & 4) SHARED_OUT(shared_word_t);
  for (count &= 3; count > 0; count--) *to++ = *from++;
#undef SHARED_OUT
}

/// Copies page data (not decisions) between shared and private memory at full speed. The barrier on both
/// sides keeps the compiler from moving or repeating it; nothing may be decided on the shared side's bytes.
static inline void shared_copy_data(void *destination, const void *source, size_t count) {
  __asm__ volatile("" ::: "memory");
  __builtin_memcpy(destination, source, count);
  __asm__ volatile("" ::: "memory");
}

/// Reads an index of the other side before anything that it published (ring.h: `xen_rmb()` after the read).
static inline uint32_t shared_load_acquire(const volatile uint32_t *word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/// Reads a word of which nothing else depends: the notification threshold of the other side.
static inline uint32_t shared_load_relaxed(const volatile uint32_t *word) {
  return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/// Publishes an index after everything written before it (ring.h: `xen_wmb()` before the write).
static inline void shared_store_release(volatile uint32_t *word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/// Writes a word that publishes nothing: our own notification threshold.
static inline void shared_store_relaxed(volatile uint32_t *word, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

/// Store-load ordering for the final check and the notify test (ring.h: `xen_mb()`).
static inline void shared_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

#endif
