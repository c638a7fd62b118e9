// From the boot loader's two entries to Swift: page tables and descriptor tables are complete in the image, so that almost
// nothing runs here (docs/platform.md, "Boot contract").
#include "include/layout.h"

    .globl boot_entry32, boot_entry64, idt_pointer, kernel_gdt, gdt_pointer, task_states, domain_stack_base
    .globl domain_keys, direct_pd, info_page, entry_page

// Page-table entry bits (Intel SDM vol. 3, 4.5), accessed and dirty preset.
#define P 0x01
#define W 0x02
#define PWT 0x08
#define PCD 0x10
#define AD 0x60
#define PS 0x80
#define G 0x100
#define NX 0x8000000000000000

    .section .note.boot, "a", @note
    .balign 4
    .long 4, 4, 18                      // name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long boot_entry32
    .balign 4
    .long 7, 8, 1                       // Castor: direct 64-bit entry
    .asciz "Castor"
    .balign 4
    .quad boot_entry64

    .section .boot, "ax"
    .code32
boot_entry32:                           // PVH: 32-bit protected mode, paging off, ebx = hvm_start_info
    movl %cr4, %eax
    orl $0x20, %eax                     // PAE
    movl %eax, %cr4
    movl $(boot_pml4 - KERNEL_BASE), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax                    // SCE, LME, NXE
    wrmsr
    movl %cr0, %eax
    orl $0x80010000, %eax               // PG, WP
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $KERNEL_CS, $boot_entry64

    .balign 8
boot_gdt_pointer:
    .word 23
    .long boot_gdt
    .balign 8
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff

    .code64
boot_entry64:                           // also Castor's direct entry: long mode, rbx = hvm_start_info
    movl $(boot_pml4 - KERNEL_BASE), %eax
    movq %rax, %cr3
    movabsq $boot_high, %rax
    jmpq *%rax

    .text
boot_high:
    rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    movl $0x50033, %ecx                 // CR0: PE MP ET NE WP AM, PG below
    orl $0x80000000, %ecx
    movq %rcx, %cr0
    movl $0x6a0, %ecx                   // CR4: PAE PGE OSFXSR OSXMMEXCPT
    movq %rcx, %cr4
    leaq cpu_blocks + CPU_SIZE(%rip), %rsp
    call load_tables
    xorl %ebp, %ebp
    movl %ebx, %edi                     // guest-physical address of hvm_start_info
    movq %rax, %rsi                     // TSC at entry
    call kernel_start
    ud2

    .section .rodata.tables, "a"
    .balign 16
idt_pointer:
    .word 4095
    .quad interrupt_gates

    .section .data.tables, "aw"
    .balign 16
kernel_gdt:                             // null, kernel code, kernel data, user data, user code, task state of each CPU
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
    .skip 16 * CPU_LIMIT
gdt_end:
    .balign 16
gdt_pointer:
    .word gdt_end - kernel_gdt - 1
    .quad kernel_gdt
    .balign 16
task_states:                            // of each CPU, Kernel/Architecture/Processor.swift
    .skip TASK_SIZE * CPU_LIMIT
domain_stack_base:                      // so that a CPU's task selector · 256 leads to the end of its stack
    .quad domain_stacks + 4096 - TSS_SELECTOR * 256
domain_keys:                            // domains are held by protection keys (domain.S)
    .quad 0

    .balign 4096
direct_pd:                              // the image's own pages are left out: its text has no writable alias
    .quad 0 + P + W + AD + PS + G + NX
    .quad 0, 0, 0
    .set frame, 0x800000
    .rept 1536 - 4
    .quad frame + P + W + AD + PS + G + NX
    .set frame, frame + 0x200000
    .endr
    .rept 512                           // devices, uncached
    .quad frame + P + W + AD + PS + G + NX + PCD + PWT
    .set frame, frame + 0x200000
    .endr
    .globl gate_page
gate_page:                              // what domains call, the only addresses of the kernel that they know: system calls, rpcCall,
    .irp gate, domain_gate, call_from_table, return_from_table      // rpcReturn; the last two change in Walls.raiseKeys
    .byte 0x49, 0xbb                                    // movabsq $gate, %r11
    .quad \gate
    .byte 0x41, 0xff, 0xe3, 0xcc, 0xcc, 0xcc            // jmpq *%r11
    .endr
    .fill 4096 - 48, 1, 0xcc
info_page:
    .skip 4096
entry_page:                             // what programs call; SYSCALL takes the place of int $4 if the probe finds it
    .byte 0xcd, SYSTEM_CALL_VECTOR, 0xc3                // int $4; ret
    .fill FAULT_RETURN_OFFSET - 3, 1, 0xcc
    .byte 0x48, 0x89, 0xc7                              // where a passed-on fault returns: movq %rax, %rdi
    .byte 0xb8, 99, 0, 0, 0                             // movl $99, %eax (faultReturn)
    .byte 0xeb, 0x100 - FAULT_RETURN_OFFSET - 10        // jmp entry_page
    .fill ENTRY_PROBE_OFFSET - FAULT_RETURN_OFFSET - 10, 1, 0xcc
    .byte 0x0f, 0x05, 0x0f, 0x0b                        // the probe: syscall; ud2
    .fill 4096 - ENTRY_PROBE_OFFSET - 4, 1, 0xcc

    .section .note.GNU-stack, "", @progbits
