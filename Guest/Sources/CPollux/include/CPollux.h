// What Swift cannot say itself in ring 3: the registers of a system call, and three instructions.
#ifndef CPOLLUX_H
#define CPOLLUX_H
#include <stddef.h>
#include <stdint.h>

// Where `rpcCall` goes: the shared entry page, or for services in kernel space the gate (PolluxABI, AddressSpace).
#ifdef POLLUX_KERNEL_SPACE
#define POLLUX_CALL_ENTRY "0x7dfffffff010"
#else
#define POLLUX_CALL_ENTRY "0x7efffffff000"
#endif

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
/// A call by thread migration (`number`: rpcCall, or rpcCallTimed with `deadline`); results are stored in `message`.
POLLUX_HIDDEN int64_t pollux_rpc_message(uint64_t number, struct pollux_message *message, uint64_t deadline);
/// Where calls of a service arrive whose context is a `pollux_rpc_main` argument: eight words through memory.
POLLUX_HIDDEN void pollux_rpc_entry(void);
/// Where calls arrive whose context is a function of C's convention: (badge, word 0…4) → two words, all in registers.
POLLUX_HIDDEN void pollux_rpc_entry_short(void);
static inline uint64_t pollux_rpc_entry_address(void) { return (uint64_t)&pollux_rpc_entry; }
static inline uint64_t pollux_rpc_entry_short_address(void) { return (uint64_t)&pollux_rpc_entry_short; }

/// What a short handler returns, in RAX and RDX.
struct pollux_short_words {
  uint64_t word0, word1;
};
struct pollux_short_reply {
  int64_t status;
  uint64_t word0, word1;
};
/// A call with five words each way at most, all in registers; two of the reply's are kept. It clobbers everything but RSP, so the
/// compiler saves what it needs and no more.
static inline __attribute__((always_inline)) struct pollux_short_reply pollux_rpc_short(
    uint64_t connection, uint64_t word0, uint64_t word1, uint64_t word2, uint64_t word3, uint64_t word4) {
  struct pollux_short_reply reply;
  register uint64_t r10 __asm__("r10") = word2;
  register uint64_t r8 __asm__("r8") = word3;
  register uint64_t r9 __asm__("r9") = word4;
  uint64_t number = 128, target = connection;
  __asm__ volatile(
      "pushq %%rbp\n\txorl %%r15d, %%r15d\n\tmovabsq $" POLLUX_CALL_ENTRY ", %%r11\n\tcall *%%r11\n\tpopq %%rbp"
      : "+a"(number), "+D"(target), "+S"(word0), "+d"(word1), "+r"(r10), "+r"(r8), "+r"(r9)
      :
      : "rbx", "rcx", "r11", "r12", "r13", "r14", "r15", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5",
        "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
  reply.status = (int64_t)number;
  reply.word0 = word0;
  reply.word1 = word1;
  return reply;
}

/// The program's first address, as it was linked.
POLLUX_HIDDEN extern const uint8_t __start[];
static inline uint64_t pollux_image_start(void) { return (uint64_t)__start; }
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
// A loop of two instructions, for comparing ring 3 with ring 0.
static inline void pollux_loop(uint64_t turns) { __asm__ volatile("1: decq %0; jnz 1b" : "+r"(turns)); }
static inline void pollux_pause(void) { __asm__ volatile("pause" : : : "memory"); }

// 64-bit words that other processes or the kernel change too.
static inline uint64_t pollux_word_load(uint64_t address) { return *(volatile uint64_t *)address; }
static inline void pollux_word_store(uint64_t address, uint64_t value) { *(volatile uint64_t *)address = value; }
static inline void pollux_word_or(uint64_t address, uint64_t bits) {
  __asm__ volatile("lock orq %0, (%1)" : : "r"(bits), "r"(address) : "memory");
}
static inline uint64_t pollux_word_exchange(uint64_t address, uint64_t value) {
  __asm__ volatile("xchgq %0, (%1)" : "+r"(value) : "r"(address) : "memory");
  return value;
}

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
