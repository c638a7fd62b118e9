// Request numbers of KVM's ioctls (macros with arguments, which Swift cannot import) and pointers into the unions of
// struct kvm_run. Source: linux/kvm.h and the kernel's Documentation/virt/kvm/api.rst.
#pragma once
#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

static const unsigned long castor_KVM_GET_API_VERSION = KVM_GET_API_VERSION;
static const unsigned long castor_KVM_CREATE_VM = KVM_CREATE_VM;
static const unsigned long castor_KVM_CHECK_EXTENSION = KVM_CHECK_EXTENSION;
static const unsigned long castor_KVM_GET_VCPU_MMAP_SIZE = KVM_GET_VCPU_MMAP_SIZE;
static const unsigned long castor_KVM_GET_SUPPORTED_CPUID = KVM_GET_SUPPORTED_CPUID;
static const unsigned long castor_KVM_SET_TSS_ADDR = KVM_SET_TSS_ADDR;
static const unsigned long castor_KVM_SET_IDENTITY_MAP_ADDR = KVM_SET_IDENTITY_MAP_ADDR;
static const unsigned long castor_KVM_CREATE_IRQCHIP = KVM_CREATE_IRQCHIP;
static const unsigned long castor_KVM_SET_IRQCHIP = KVM_SET_IRQCHIP;
static const unsigned long castor_KVM_GET_IRQCHIP = KVM_GET_IRQCHIP;
static const unsigned long castor_KVM_CREATE_PIT2 = KVM_CREATE_PIT2;
static const unsigned long castor_KVM_SET_USER_MEMORY_REGION = KVM_SET_USER_MEMORY_REGION;
static const unsigned long castor_KVM_CREATE_VCPU = KVM_CREATE_VCPU;
static const unsigned long castor_KVM_RUN = KVM_RUN;
static const unsigned long castor_KVM_SET_CPUID2 = KVM_SET_CPUID2;
static const unsigned long castor_KVM_GET_REGS = KVM_GET_REGS;
static const unsigned long castor_KVM_SET_REGS = KVM_SET_REGS;
static const unsigned long castor_KVM_GET_SREGS = KVM_GET_SREGS;
static const unsigned long castor_KVM_SET_SREGS = KVM_SET_SREGS;
static const unsigned long castor_KVM_GET_FPU = KVM_GET_FPU;
static const unsigned long castor_KVM_SET_XSAVE = KVM_SET_XSAVE;
static const unsigned long castor_KVM_GET_XSAVE = KVM_GET_XSAVE;
static const unsigned long castor_KVM_GET_MSRS = KVM_GET_MSRS;
static const unsigned long castor_KVM_SET_MSRS = KVM_SET_MSRS;
static const unsigned long castor_KVM_SET_GSI_ROUTING = KVM_SET_GSI_ROUTING;
static const unsigned long castor_KVM_IRQFD = KVM_IRQFD;
static const unsigned long castor_KVM_IOEVENTFD = KVM_IOEVENTFD;
static const unsigned long castor_KVM_SIGNAL_MSI = KVM_SIGNAL_MSI;
static const unsigned long castor_KVM_IRQ_LINE = KVM_IRQ_LINE;
static const unsigned long castor_KVM_GET_TSC_KHZ = KVM_GET_TSC_KHZ;
static const unsigned long castor_KVM_SET_GUEST_DEBUG = KVM_SET_GUEST_DEBUG;
static const unsigned long castor_KVM_TRANSLATE = KVM_TRANSLATE;
static const unsigned long castor_KVM_GET_LAPIC = KVM_GET_LAPIC;
static const unsigned long castor_KVM_SET_LAPIC = KVM_SET_LAPIC;
static const unsigned long castor_KVM_GET_MP_STATE = KVM_GET_MP_STATE;
static const unsigned long castor_KVM_SET_MP_STATE = KVM_SET_MP_STATE;
static const unsigned long castor_KVM_GET_DEBUGREGS = KVM_GET_DEBUGREGS;
static const unsigned long castor_KVM_SET_DEBUGREGS = KVM_SET_DEBUGREGS;
static const unsigned long castor_KVM_GET_VCPU_EVENTS = KVM_GET_VCPU_EVENTS;
static const unsigned long castor_KVM_SET_VCPU_EVENTS = KVM_SET_VCPU_EVENTS;
static const unsigned long castor_KVM_ENABLE_CAP = KVM_ENABLE_CAP;
static const unsigned long castor_KVM_GET_DIRTY_LOG = KVM_GET_DIRTY_LOG;
static const unsigned long castor_KVM_NMI = KVM_NMI;
static const unsigned long castor_KVM_KVMCLOCK_CTRL = KVM_KVMCLOCK_CTRL;
static const unsigned long castor_KVM_GET_CLOCK = KVM_GET_CLOCK;

// The shared page of a vCPU. All of these only compute an address inside `run`, which the caller keeps mapped.
static inline struct kvm_regs *castor_run_registers(struct kvm_run *run) { return &run->s.regs.regs; }
static inline struct kvm_sregs *castor_run_system_registers(struct kvm_run *run) { return &run->s.regs.sregs; }
static inline uint32_t castor_run_exit_reason(const struct kvm_run *run) { return __atomic_load_n(&run->exit_reason, __ATOMIC_RELAXED); }
static inline void castor_run_set_immediate_exit(struct kvm_run *run, uint8_t value) { __atomic_store_n(&run->immediate_exit, value, __ATOMIC_SEQ_CST); }
static inline void castor_run_set_valid(struct kvm_run *run, uint64_t mask) { run->kvm_valid_regs = mask; }
static inline void castor_run_add_dirty(struct kvm_run *run, uint64_t mask) { run->kvm_dirty_regs |= mask; }
static inline uint8_t castor_run_io_direction(const struct kvm_run *run) { return run->io.direction; }
static inline uint8_t castor_run_io_size(const struct kvm_run *run) { return run->io.size; }
static inline uint16_t castor_run_io_port(const struct kvm_run *run) { return run->io.port; }
static inline uint32_t castor_run_io_count(const struct kvm_run *run) { return run->io.count; }
static inline void *castor_run_io_data(struct kvm_run *run) { return (uint8_t *)run + run->io.data_offset; }
static inline uint64_t castor_run_mmio_address(const struct kvm_run *run) { return run->mmio.phys_addr; }
static inline uint32_t castor_run_mmio_count(const struct kvm_run *run) { return run->mmio.len; }
static inline uint8_t castor_run_mmio_is_write(const struct kvm_run *run) { return run->mmio.is_write; }
static inline void *castor_run_mmio_data(struct kvm_run *run) { return run->mmio.data; }
static inline uint32_t castor_run_internal_suberror(const struct kvm_run *run) { return run->internal.suberror; }
static inline uint32_t castor_run_internal_count(const struct kvm_run *run) { return run->internal.ndata; }
static inline uint64_t castor_run_internal_data(const struct kvm_run *run, unsigned index) { return run->internal.data[index & 15]; }
static inline uint8_t castor_run_instruction_count(const struct kvm_run *run) { return run->emulation_failure.insn_size; }
static inline uint64_t castor_run_failure_flags(const struct kvm_run *run) { return run->emulation_failure.flags; }
static inline const uint8_t *castor_run_instruction_bytes(const struct kvm_run *run) { return run->emulation_failure.insn_bytes; }
static inline uint32_t castor_run_system_event(const struct kvm_run *run) { return run->system_event.type; }
static inline uint64_t castor_run_entry_failure(const struct kvm_run *run) { return run->fail_entry.hardware_entry_failure_reason; }
static inline uint64_t castor_run_debug_address(const struct kvm_run *run) { return run->debug.arch.pc; }
static inline uint64_t castor_run_debug_dr6(const struct kvm_run *run) { return run->debug.arch.dr6; }
static inline uint64_t castor_run_debug_dr7(const struct kvm_run *run) { return run->debug.arch.dr7; }
static inline uint32_t castor_run_debug_exception(const struct kvm_run *run) { return run->debug.arch.exception; }

// Structures that end in a flexible array: the caller allocates header plus `count` entries.
static inline struct kvm_cpuid_entry2 *castor_cpuid_entries(struct kvm_cpuid2 *table) { return table->entries; }
static inline struct kvm_irq_routing_entry *castor_routing_entries(struct kvm_irq_routing *table) { return table->entries; }
static inline struct kvm_msr_entry *castor_msr_entries(struct kvm_msrs *table) { return table->entries; }
static inline struct kvm_irq_routing_entry castor_ioapic_route(uint32_t gsi, uint32_t pin) {
  struct kvm_irq_routing_entry entry = {.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP};
  entry.u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
  entry.u.irqchip.pin = pin;
  return entry;
}
static inline struct kvm_irq_routing_entry castor_message_route(uint32_t gsi, uint64_t address, uint32_t data) {
  struct kvm_irq_routing_entry entry = {.gsi = gsi, .type = KVM_IRQ_ROUTING_MSI};
  entry.u.msi.address_lo = (uint32_t)address;
  entry.u.msi.address_hi = (uint32_t)(address >> 32);
  entry.u.msi.data = data;
  return entry;
}
static inline void castor_mask_pic(struct kvm_irqchip *chip) { chip->chip.pic.imr = 0xff; }
static inline void castor_set_debug_registers(struct kvm_guest_debug *debug, const uint64_t *registers) {
  for (int i = 0; i < 8; i++) debug->arch.debugreg[i] = registers[i];
}
