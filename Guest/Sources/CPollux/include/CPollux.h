// What Swift cannot say itself in ring 3: the registers of a system call, and three instructions.
#ifndef CPOLLUX_H
#define CPOLLUX_H
#include <stddef.h>
#include <stdint.h>

#define POLLUX_HIDDEN __attribute__((visibility("hidden")))

/// The registers of a message call (PolluxABI, SystemCall.swift). `target` is RDI, `handle` R15, both ways.
struct pollux_message {
  uint64_t word0, word1, word2, word3, word4, word5, word6, word7;
  uint64_t handle;
  uint64_t target;
};

/// A system call with up to six arguments; the kernel's result.
POLLUX_HIDDEN int64_t pollux_system_call(uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                                         uint64_t f);
/// A message call; results are stored in `message`.
POLLUX_HIDDEN int64_t pollux_message_call(uint64_t number, struct pollux_message *message);
/// Where a new thread begins: calls `pollux_thread_main` with its first argument.
POLLUX_HIDDEN void pollux_thread_entry(void);
/// Argument 0 of the program's first thread.
POLLUX_HIDDEN extern uint64_t pollux_start_argument;

static inline uint64_t pollux_thread_entry_address(void) { return (uint64_t)&pollux_thread_entry; }
static inline uint64_t pollux_start_block(void) { return pollux_start_argument; }

/// The time-stamp counter, after all earlier loads.
static inline uint64_t pollux_time_stamp(void) {
  uint32_t low, high;
  __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (uint64_t)high << 32 | low;
}
/// value · multiplier / divisor with a 128-bit product; all ones where the quotient does not fit 64 bits.
static inline uint64_t pollux_scale(uint64_t value, uint64_t multiplier, uint64_t divisor) {
  unsigned __int128 product = (unsigned __int128)value * multiplier;
  uint64_t low = (uint64_t)product, high = (uint64_t)(product >> 64), quotient;
  if (high >= divisor) return UINT64_MAX;
  // The quotient fits, so the instruction does not fault.
  __asm__("divq %2" : "=a"(quotient), "+d"(high) : "r"(divisor), "a"(low) : "cc");
  return quotient;
}
static inline void pollux_pause(void) { __asm__ volatile("pause" : : : "memory"); }

// 32-bit device registers: one plain `mov` each, which is all that a software KVM emulates.
static inline uint32_t pollux_device_load(uint64_t address) {
  uint32_t value;
  __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
  return value;
}
static inline void pollux_device_store(uint64_t address, uint32_t value) {
  __asm__ volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory");
}
static inline uint8_t pollux_device_load8(uint64_t address) {
  uint8_t value;
  __asm__ volatile("movb (%1), %0" : "=q"(value) : "r"(address) : "memory");
  return value;
}
#endif
