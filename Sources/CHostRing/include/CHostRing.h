// An io_uring behind an opaque type. liburing's header and swift-system's disagree on the layout of anonymous unions,
// so Swift files that import the one cannot see the other: nothing of liburing is visible here.
#pragma once
#include <stdint.h>

typedef struct castor_host_ring castor_host_ring;

// Makes a ring of `entries` requests; NULL with the errno in `error` where the host refuses.
castor_host_ring *castor_host_ring_create(unsigned entries, int *error);
void castor_host_ring_destroy(castor_host_ring *ring);

// Prepares one read (or write) of `count` bytes at `offset`; `tag` comes back with its completion. `buffer` belongs to
// the request until then. Returns 0, or -EBUSY where the ring is full.
int castor_host_ring_prepare(castor_host_ring *ring, int is_write, int fd, void *buffer, unsigned count,
                             uint64_t offset, uint64_t tag);
// Submits what was prepared and waits for one completion. Returns 0 or a negative errno; `result` is the request's.
int castor_host_ring_wait(castor_host_ring *ring, uint64_t *tag, int *result);
