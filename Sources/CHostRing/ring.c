#include "CHostRing.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

struct castor_host_ring {
    struct io_uring ring;
};

castor_host_ring *castor_host_ring_create(unsigned entries, int *error) {
    castor_host_ring *made = malloc(sizeof *made);
    if (!made) {
        *error = ENOMEM;
        return NULL;
    }
    int result = io_uring_queue_init(entries, &made->ring, 0);
    if (result < 0) {
        *error = -result;
        free(made);
        return NULL;
    }
    return made;
}

void castor_host_ring_destroy(castor_host_ring *ring) {
    io_uring_queue_exit(&ring->ring);
    free(ring);
}

int castor_host_ring_prepare(castor_host_ring *ring, int is_write, int fd, void *buffer, unsigned count,
                             uint64_t offset, uint64_t tag) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring->ring);
    if (!entry) return -EBUSY;
    if (is_write)
        io_uring_prep_write(entry, fd, buffer, count, offset);
    else
        io_uring_prep_read(entry, fd, buffer, count, offset);
    entry->user_data = tag;
    return 0;
}

int castor_host_ring_wait(castor_host_ring *ring, uint64_t *tag, int *result) {
    struct io_uring_cqe *completion;
    // What is prepared goes to the kernel in one call; that call waits only where nothing has completed yet.
    unsigned wanted = io_uring_cq_ready(&ring->ring) ? 0 : 1;
    if (wanted || io_uring_sq_ready(&ring->ring)) {
        int submitted;
        do
            submitted = io_uring_submit_and_wait(&ring->ring, wanted);
        while (submitted == -EINTR);
        if (submitted < 0) return submitted;
    }
    int waited = io_uring_wait_cqe(&ring->ring, &completion);
    if (waited < 0) return waited;
    *tag = completion->user_data;
    *result = completion->res;
    io_uring_cqe_seen(&ring->ring, completion);
    return 0;
}
