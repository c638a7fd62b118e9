// See CRing.h.
#define _GNU_SOURCE 1
#include "CRing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct castor_ring {
  struct io_uring ring;
  int enabled;
};

struct castor_ring *castor_ring_create(unsigned entries, const int *files, unsigned file_count, int event) {
  struct castor_ring *ring = calloc(1, sizeof *ring);
  if (!ring) return NULL;
  // Completion work runs when the submitting thread asks for it and never interrupts it, and a flag says when there is
  // some. Kernels before 6.1 have not got that and get a plain ring.
  int result = io_uring_queue_init(entries, &ring->ring,
                                   IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                                       IORING_SETUP_R_DISABLED);
  if (result == -EINVAL) {
    ring->enabled = 1;
    result = io_uring_queue_init(entries, &ring->ring, 0);
  }
  if (result == 0) {
    result = io_uring_register_files(&ring->ring, files, file_count);
    if (result == 0) result = io_uring_register_eventfd(&ring->ring, event);
    if (result < 0) io_uring_queue_exit(&ring->ring);
  }
  if (result < 0) {
    free(ring);
    errno = -result;
    return NULL;
  }
  return ring;
}

void castor_ring_destroy(struct castor_ring *ring) {
  io_uring_queue_exit(&ring->ring);
  free(ring);
}

static int finish(struct io_uring_sqe *entry, uint64_t data) {
  io_uring_sqe_set_flags(entry, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data64(entry, data);
  return 0;
}

int castor_ring_read(struct castor_ring *ring, int file, void *bytes, unsigned count, uint64_t offset, uint64_t data) {
  struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
  if (!entry) return -1;
  io_uring_prep_read(entry, file, bytes, count, offset);
  return finish(entry, data);
}

int castor_ring_write(struct castor_ring *ring, int file, const void *bytes, unsigned count, uint64_t offset, int durable,
                      uint64_t data) {
  struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
  if (!entry) return -1;
  io_uring_prep_write(entry, file, bytes, count, offset);
  if (durable) entry->rw_flags = RWF_DSYNC;
  return finish(entry, data);
}

int castor_ring_readv(struct castor_ring *ring, int file, const struct iovec *segments, unsigned count, uint64_t offset,
                      uint64_t data) {
  struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
  if (!entry) return -1;
  io_uring_prep_readv(entry, file, segments, count, offset);
  return finish(entry, data);
}

int castor_ring_writev(struct castor_ring *ring, int file, const struct iovec *segments, unsigned count, uint64_t offset,
                       int durable, uint64_t data) {
  struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
  if (!entry) return -1;
  io_uring_prep_writev(entry, file, segments, count, offset);
  if (durable) entry->rw_flags = RWF_DSYNC;
  return finish(entry, data);
}

int castor_ring_fdatasync(struct castor_ring *ring, int file, uint64_t data) {
  struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
  if (!entry) return -1;
  io_uring_prep_fsync(entry, file, IORING_FSYNC_DATASYNC);
  return finish(entry, data);
}

static int allocate(struct castor_ring *ring, int file, int mode, uint64_t offset, uint64_t count, uint64_t data) {
  struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
  if (!entry) return -1;
  io_uring_prep_fallocate(entry, file, FALLOC_FL_KEEP_SIZE | mode, (off_t)offset, (off_t)count);
  return finish(entry, data);
}

int castor_ring_punch_hole(struct castor_ring *ring, int file, uint64_t offset, uint64_t count, uint64_t data) {
  return allocate(ring, file, FALLOC_FL_PUNCH_HOLE, offset, count, data);
}

int castor_ring_zero_range(struct castor_ring *ring, int file, uint64_t offset, uint64_t count, uint64_t data) {
  return allocate(ring, file, FALLOC_FL_ZERO_RANGE, offset, count, data);
}

static void enable(struct castor_ring *ring) {
  if (ring->enabled) return;
  ring->enabled = 1;
  // liburing 2.3 declares io_uring_enable_rings but does not export it.
  syscall(SYS_io_uring_register, ring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

int castor_ring_submit(struct castor_ring *ring) {
  enable(ring);
  return io_uring_submit(&ring->ring);
}

int castor_ring_submit_and_wait(struct castor_ring *ring) {
  enable(ring);
  return io_uring_submit_and_wait(&ring->ring, 1);
}

unsigned castor_ring_reap(struct castor_ring *ring, struct castor_ring_completion *completions, unsigned limit) {
  struct io_uring_cqe *entries[64];
  unsigned count = io_uring_peek_batch_cqe(&ring->ring, entries, limit < 64 ? limit : 64);
  for (unsigned i = 0; i < count; i++) {
    completions[i].data = entries[i]->user_data;
    completions[i].result = entries[i]->res;
  }
  io_uring_cq_advance(&ring->ring, count);
  return count;
}
