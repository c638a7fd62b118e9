// What the assembly files offer to Swift, and the single instructions that Swift has no word for.
#ifndef POLLUX_CARCH_H
#define POLLUX_CARCH_H

#include <stdint.h>

#include "layout.h"

// Order and size: docs/platform.md, "Trap frame"; entry.S pushes it.
struct trap_frame {
  uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
  uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

// 64-bit task state segment (Intel SDM vol. 3, 8.7), used for its stack pointers.
struct __attribute__((packed)) task_state {
  uint32_t reserved0;
  uint64_t rsp0, rsp1, rsp2, reserved1, ist1, ist2, ist3, ist4, ist5, ist6, ist7, reserved2;
  uint16_t reserved3, io_map;
};

#define INLINE static inline __attribute__((always_inline))

// MARK: Instructions

INLINE void port_write8(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
INLINE void port_write32(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
INLINE uint8_t port_read8(uint16_t port) {
  uint8_t value;
  __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
// Writes bytes to one port; returns nothing and reads exactly `count` bytes.
INLINE void port_write_bytes(uint16_t port, const void *bytes, uint64_t count) {
  __asm__ volatile("rep outsb" : "+S"(bytes), "+c"(count) : "d"(port) : "memory");
}
// Tells the VMM of a trap in ring 3: RDI = its frame, which may have changed afterwards.
INLINE void debug_trap(uint16_t port, struct trap_frame *frame, uint32_t value) {
  __asm__ volatile("outl %0, %w1" : : "a"(value), "d"(port), "D"(frame) : "memory");
}
INLINE uint64_t msr_read(uint32_t msr) {
  uint32_t low, high;
  __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
  return (uint64_t)high << 32 | low;
}
INLINE void msr_write(uint32_t msr, uint64_t value) {
  __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}
INLINE uint64_t time_stamp(void) {
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return (uint64_t)high << 32 | low;
}
struct cpuid_result { uint32_t eax, ebx, ecx, edx; };
INLINE struct cpuid_result cpu_identify(uint32_t leaf, uint32_t subleaf) {
  struct cpuid_result r;
  __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
  return r;
}
INLINE uint64_t fault_address(void) {
  uint64_t value;
  __asm__ volatile("movq %%cr2, %0" : "=r"(value));
  return value;
}
INLINE void page_table_set(uint64_t root) { __asm__ volatile("movq %0, %%cr3" : : "r"(root) : "memory"); }
INLINE uint64_t page_table_get(void) {
  uint64_t value;
  __asm__ volatile("movq %%cr3, %0" : "=r"(value));
  return value;
}
INLINE void page_invalidate(uint64_t address) { __asm__ volatile("invlpg (%0)" : : "r"(address) : "memory"); }
INLINE uint64_t control4_get(void) {
  uint64_t value;
  __asm__ volatile("movq %%cr4, %0" : "=r"(value));
  return value;
}
INLINE void control4_set(uint64_t value) { __asm__ volatile("movq %0, %%cr4" : : "r"(value) : "memory"); }
INLINE void task_register_load(uint16_t selector) { __asm__ volatile("ltr %w0" : : "r"(selector)); }
// A loop of two instructions, for measuring.
INLINE void loop_turns(uint64_t count) {
  __asm__ volatile("1: decq %0; jnz 1b" : "+r"(count));
}
INLINE void spin_pause(void) { __asm__ volatile("pause" : : : "memory"); }
INLINE void halt_once(void) { __asm__ volatile("hlt" : : : "memory"); }
INLINE uint64_t frame_pointer(void) {
  uint64_t value;
  __asm__ volatile("movq %%rbp, %0" : "=r"(value));
  return value;
}
INLINE uint64_t stack_pointer(void) {
  uint64_t value;
  __asm__ volatile("movq %%rsp, %0" : "=r"(value));
  return value;
}
INLINE void float_save(uint64_t area) { __asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory"); }
INLINE void float_restore(uint64_t area) { __asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory"); }

// MARK: Memory by kernel-virtual address. Plain moves, as devices need them.

INLINE uint64_t load64(uint64_t address) { return *(volatile uint64_t *)address; }
INLINE uint32_t load32(uint64_t address) { return *(volatile uint32_t *)address; }
INLINE uint8_t load8(uint64_t address) { return *(volatile uint8_t *)address; }
INLINE void store64(uint64_t address, uint64_t value) { *(volatile uint64_t *)address = value; }
INLINE void store32(uint64_t address, uint32_t value) {
  __asm__ volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory");
}
INLINE void store8(uint64_t address, uint8_t value) { *(volatile uint8_t *)address = value; }
INLINE uint64_t exchange64(uint64_t address, uint64_t value) {
  __asm__ volatile("xchgq %0, (%1)" : "+r"(value) : "r"(address) : "memory");
  return value;
}
INLINE void or64(uint64_t address, uint64_t bits) {
  __asm__ volatile("lock orq %0, (%1)" : : "r"(bits), "r"(address) : "memory");
}
INLINE void copy_bytes(uint64_t to, uint64_t from, uint64_t count) {
  __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}
INLINE void copy_words(uint64_t to, uint64_t from, uint64_t count) {
  __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}
INLINE void clear_words(uint64_t address, uint64_t count) {
  __asm__ volatile("rep stosq" : "+D"(address), "+c"(count) : "a"(0L) : "memory");
}
// The high and low half of a product, for converting times.
INLINE uint64_t multiply_high(uint64_t a, uint64_t b) { return (unsigned __int128)a * b >> 64; }
// (a << 32) / b for a < b << 32.
INLINE uint64_t divide_scaled(uint64_t a, uint64_t b) {
  uint64_t high = a >> 32, low = a << 32, quotient;
  __asm__("divq %2" : "=a"(quotient), "+d"(high) : "r"(b), "a"(low));
  return quotient;
}

// MARK: Symbols of the assembly files and of the linker script

#pragma clang attribute push(__attribute__((visibility("hidden"))), apply_to = any(function, variable(is_global)))
extern uint8_t kernel_gdt[], kernel_pml4[], boot_pml4[], direct_pdpt[], shared_pt[], info_page[], entry_page[];
extern uint8_t cpu_blocks[], clock_page[], kernel_end[], kernel_state[], kernel_log[], thread_table[], process_table[];
extern uint8_t system_call_entry[], probe_entry[], smp_active[], kernel_lock[];
extern uint8_t trampoline_start[], trampoline_end[];
extern uint8_t task_states[], domain_keys[], domain_stacks[], interrupt_gates[], service_pd[], service_pt[];
extern uint8_t image_pd[];
extern uint8_t gate_page[], call_from_keys[], return_from_keys[];
extern uint8_t user_to_user[], user_to_keys[], user_to_table[], user_to_none[];
extern uint8_t domain_to_user[], domain_to_keys[], domain_to_table[], domain_to_none[];
// Tries a load from `address` under the protection-key rights `keys`: the page fault's error code, or 0.
uint64_t keys_try(uint64_t address, uint32_t keys);
// Sets bits of CR4; 0 where the processor does not have them.
uint64_t control4_try(uint64_t bits);
// Enters ring 3 with the frame at `frame`, on a CPU whose block is known; never returns.
void enter_frame(struct trap_frame *frame) __attribute__((noreturn));
// Waits for interrupts on the CPU's own stack; never returns.
void enter_idle(uint64_t cpu) __attribute__((noreturn));
#pragma clang attribute pop

#define ADDRESS_OF(symbol) \
  INLINE uint64_t address_of_##symbol(void) { return (uint64_t)symbol; }
ADDRESS_OF(kernel_gdt)
ADDRESS_OF(kernel_pml4)
ADDRESS_OF(direct_pdpt)
ADDRESS_OF(shared_pt)
ADDRESS_OF(info_page)
ADDRESS_OF(entry_page)
ADDRESS_OF(cpu_blocks)
ADDRESS_OF(clock_page)
ADDRESS_OF(kernel_end)
ADDRESS_OF(kernel_state)
ADDRESS_OF(kernel_log)
ADDRESS_OF(thread_table)
ADDRESS_OF(process_table)
ADDRESS_OF(system_call_entry)
ADDRESS_OF(probe_entry)
ADDRESS_OF(smp_active)
ADDRESS_OF(kernel_lock)
ADDRESS_OF(task_states)
ADDRESS_OF(domain_keys)
ADDRESS_OF(domain_stacks)
ADDRESS_OF(interrupt_gates)
ADDRESS_OF(image_pd)
ADDRESS_OF(service_pd)
ADDRESS_OF(service_pt)
ADDRESS_OF(trampoline_start)
ADDRESS_OF(trampoline_end)
ADDRESS_OF(gate_page)
ADDRESS_OF(call_from_keys)
ADDRESS_OF(return_from_keys)
ADDRESS_OF(user_to_user)
ADDRESS_OF(user_to_keys)
ADDRESS_OF(user_to_table)
ADDRESS_OF(user_to_none)
ADDRESS_OF(domain_to_user)
ADDRESS_OF(domain_to_keys)
ADDRESS_OF(domain_to_table)
ADDRESS_OF(domain_to_none)

#endif
