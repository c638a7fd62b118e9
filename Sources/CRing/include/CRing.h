// liburing behind plain C functions. Swift cannot import liburing.h itself: it defines feature macros and structures
// that contradict those of swift-system's C module.
#pragma once
#include <stdint.h>
#include <sys/uio.h>

struct castor_ring;

struct castor_ring_completion {
  uint64_t data;
  int32_t result; // of the system call, negative errno on failure
};

// A ring with room for `entries` requests, which name files by their position in `files`. The eventfd `event` is
// signalled when there may be completions. NULL with errno on failure.
struct castor_ring *castor_ring_create(unsigned entries, const int *files, unsigned file_count, int event);
void castor_ring_destroy(struct castor_ring *ring);

// Each prepares one request and returns 0, or -1 when all entries are taken. `segments` must stay until completion.
int castor_ring_read(struct castor_ring *ring, int file, void *bytes, unsigned count, uint64_t offset, uint64_t data);
int castor_ring_write(struct castor_ring *ring, int file, const void *bytes, unsigned count, uint64_t offset, int durable,
                      uint64_t data);
int castor_ring_readv(struct castor_ring *ring, int file, const struct iovec *segments, unsigned count, uint64_t offset,
                      uint64_t data);
int castor_ring_writev(struct castor_ring *ring, int file, const struct iovec *segments, unsigned count, uint64_t offset,
                       int durable, uint64_t data);
int castor_ring_fdatasync(struct castor_ring *ring, int file, uint64_t data);
int castor_ring_punch_hole(struct castor_ring *ring, int file, uint64_t offset, uint64_t count, uint64_t data);
int castor_ring_zero_range(struct castor_ring *ring, int file, uint64_t offset, uint64_t count, uint64_t data);

// Hands everything prepared to the kernel. The first thread that does so must be the only one.
int castor_ring_submit(struct castor_ring *ring);
// The same, and waits until there is a completion.
int castor_ring_submit_and_wait(struct castor_ring *ring);
// Takes up to `limit` completions and returns how many.
unsigned castor_ring_reap(struct castor_ring *ring, struct castor_ring_completion *completions, unsigned limit);
