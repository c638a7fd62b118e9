// Small position-independent programs that the kernel's test runs in processes of their own (children.S), and register-level
// helpers.
#ifndef CKERNELTEST_H
#define CKERNELTEST_H
#include <stdint.h>

#include "TokenChildren.h"

#define HIDDEN __attribute__((visibility("hidden")))
// All children lie in one page-aligned, page-sized block that is copied as a whole.
HIDDEN extern const uint8_t children_start[], children_end[];
#define CHILD(name)                                                                 \
  HIDDEN extern const uint8_t child_##name[];                                       \
  static inline uint64_t child_offset_##name(void) { return (uint64_t)(child_##name - children_start); }
CHILD(exit)
CHILD(undefined)
CHILD(breakpoint)
CHILD(divide)
CHILD(null_read)
CHILD(kernel_read)
CHILD(kernel_write)
CHILD(info_write)
CHILD(code_write)
CHILD(stack_execute)
CHILD(disable_interrupts)
CHILD(port)
CHILD(halt)
CHILD(msr)
CHILD(interrupt)
CHILD(noncanonical)
CHILD(spin)
CHILD(touch)
CHILD(call)
CHILD(serve_and_die)
CHILD(receive_and_die)
CHILD(fuzz)
CHILD(rpc_server)
CHILD(rpc_null)
CHILD(rpc_client)

static inline const void *children_base(void) { return children_start; }
static inline uint64_t children_size(void) { return (uint64_t)(children_end - children_start); }

// A message round trip of `count` calls on `endpoint`; returns the first failing status or 0. No memory is touched inside.
HIDDEN int64_t measure_calls(uint64_t endpoint, uint64_t count);
// The same by thread migration.
HIDDEN int64_t measure_rpc(uint64_t connection, uint64_t count);
// Answers calls on `endpoint` until receiving fails.
HIDDEN void serve_calls(uint64_t endpoint);
// `count` null system calls.
HIDDEN void measure_null(uint64_t count);
// `count` signals of bit 0 and polls.
HIDDEN void measure_signal(uint64_t notification, uint64_t count);
// Fills all XMM registers and x87 from `seed`, spins until the TSC reaches `until`, and says whether all still hold it.
HIDDEN int float_registers_survive(uint64_t seed, uint64_t until);
// Whether all registers and flags survive a load from `address`.
HIDDEN int registers_survive_fault(uint64_t address, uint64_t seed);
// `value` + 1 if the thread goes on two bytes behind an instruction that is none, or behind a load from an address that is none.
HIDDEN int passed_undefined(int value);
HIDDEN int passed_protection(int value);
#endif
