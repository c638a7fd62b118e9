// What Swift cannot import by itself from the host's kernel headers: ioctl numbers that are macros with
// arguments, atomic access to memory that a guest shares, and variadic functions.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include "KVMAccess.h"
#include <linux/virtio_net.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

// Atomic access to shared memory. The caller guarantees that `p` is mapped and aligned.
static inline uint16_t castor_load_acquire_u16(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
static inline void castor_store_release_u16(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
static inline uint32_t castor_load_acquire_u32(const void *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE); }
static inline void castor_store_release_u32(void *p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELEASE); }
static inline uint64_t castor_load_acquire_u64(const void *p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_ACQUIRE); }
static inline void castor_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// ioctl is variadic, which Swift cannot call.
static inline int castor_ioctl_value(int fd, unsigned long request, unsigned long value) { return ioctl(fd, request, value); }
static inline int castor_ioctl_pointer(int fd, unsigned long request, void *value) { return ioctl(fd, request, value); }
static inline int castor_open(const char *path, int flags, unsigned mode) { return open(path, flags, mode); }
// Processors that the calling thread may run on; -1 with errno.
static inline int castor_allowed_processors(void) {
  unsigned long mask[128] = {0};
  long length = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
  int count = 0;
  if (length < 0) return -1;
  for (unsigned long i = 0; i < (unsigned long)length / sizeof *mask; i++) count += __builtin_popcountl(mask[i]);
  return count;
}
static inline int castor_set_nonblocking(int fd) { return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }
static inline int castor_memfd_create(const char *name, unsigned flags) { return (int)syscall(SYS_memfd_create, name, flags); }
void castor_set_thread_name(const char *name);

// packets.c: a packet socket that sends and receives whole frames of one EtherType on an interface, which is brought up. The descriptor, or
// −1 with errno; ENODEV while there is no such interface.
int castor_packet_socket(const char *interface, uint16_t type);

// terminal.c: raw mode that ends with the process, however that ends. One terminal a process.
// Saves the mode of `fd` and makes it raw while the process is in the foreground; writes 1 to the eventfd
// `continue_event` (−1: none) after each SIGCONT. 0, or −1 with errno.
int castor_terminal_make_raw(int fd, int continue_event);
// Puts the saved mode back; async-signal-safe, harmless when called again.
void castor_terminal_restore(void);
int castor_terminal_in_foreground(int fd);
// accept4(2), which glibc declares only under _GNU_SOURCE: non-blocking, close-on-exec.
static inline int castor_accept(int fd) { return (int)syscall(SYS_accept4, fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC); }
// ioctl numbers that the importer does not evaluate: a pseudo-terminal's number, and its lock.
static const unsigned long castor_TIOCGPTN = TIOCGPTN, castor_TIOCSPTLCK = TIOCSPTLCK;
