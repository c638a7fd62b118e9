// Small position-independent programs for domains in kernel space, which try to leave them (intruders.S).
#ifndef CISOLATIONTEST_H
#define CISOLATIONTEST_H
#include <stdint.h>

#define HIDDEN __attribute__((visibility("hidden")))
// All lie in one page-aligned, page-sized block that is copied as a whole.
HIDDEN extern const uint8_t intruders_start[], intruders_end[];
#define INTRUDER(name)                        \
  HIDDEN extern const uint8_t intruder_##name[]; \
  static inline uint64_t intruder_offset_##name(void) { return (uint64_t)(intruder_##name - intruders_start); }
INTRUDER(exit)
INTRUDER(read)
INTRUDER(write)
INTRUDER(execute)
INTRUDER(stack)
INTRUDER(gate_stack)
INTRUDER(gate_write)
INTRUDER(info_write)
INTRUDER(code_write)
INTRUDER(keys_forged)
INTRUDER(spin)
INTRUDER(undefined)
INTRUDER(divide)
INTRUDER(overflow)
INTRUDER(echo)

static inline const void *intruders_base(void) { return intruders_start; }
#endif
