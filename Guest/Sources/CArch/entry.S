// The way into the kernel and out again.
//
// A thread's registers are saved at the start of its thread object: the task state's RSP0 points behind them, so an interrupt
// from ring 3 pushes them where they belong and the object is found by RSP alone. Kernel code then runs on the CPU's own
// stack, with interrupts off, and returns the thread to resume, or null to wait for an interrupt. GS is the program's, except
// for a few instructions of the SYSCALL entry.
#include "include/layout.h"
#include "registers.h"
#include "rpc.h"

    .globl user_to_user, enter_user, rpc_after, trap_user, system_call_interrupt, system_call_entry, system_call_common, enter_frame, enter_idle
    .globl trap_in_kernel, acquire_kernel, probe_entry, trampoline_start, trampoline_end, load_tables, smp_active
    .globl kernel_lock

// RDI = thread, RSI = CPU block, stack = the CPU's, big kernel lock held.
.macro enter_kernel
    cld
    movq THREAD_CPU(%rsp), %rsi
    movq %rsp, %rdi
    leaq CPU_SIZE(%rsi), %rsp
    xorl %ebp, %ebp
    cmpb $0, smp_active(%rip)
    je 8f
    call acquire_kernel
    cmpb $0, THREAD_VOID(%rdi)          // another CPU took the thread elsewhere while it waited for the lock
    jne void_entry
8:
.endm

    .text
trap_user:                              // behind trap_common in domain.S: from ring 3, or from a domain and all is as if
    enter_kernel
    call kernel_trap
    jmp leave_kernel

system_call_interrupt:                  // int $4: the processor has pushed SS, RSP, RFLAGS, CS and RIP
    testb %al, %al
    js rpc_interrupt
plain_interrupt:
    pushq $0
    pushq $SYSTEM_CALL_VECTOR
    jmp system_call_common
rpc_interrupt:
    cmpl $RPC_RETURN, %eax
    ja plain_interrupt
    movq (%rsp), %rcx
    movq 16(%rsp), %r11
    movq 24(%rsp), %rbx
    leaq -FRAME_RIP(%rsp), %rsp
    swapgs
    je rpc_return
    jmp rpc_call

system_call_entry:                      // SYSCALL: RCX = RIP, R11 = RFLAGS
    testb %al, %al
    js rpc_system_call
plain_system_call:
    swapgs
    movq %rsp, %gs:CPU_SCRATCH
    movq %gs:CPU_CURRENT, %rsp
    push_entry $USER_SS, %gs:CPU_SCRATCH, %r11, $USER_CS, SYSTEM_CALL_VECTOR
    swapgs
system_call_common:                     // no other way leads here than from ring 3
    push_registers
    enter_kernel
    movq FRAME_RAX(%rdi), %rax
    cmpq $7, %rax
    ja 9f
    leaq hot_calls(%rip), %rcx
    call *(%rcx, %rax, 8)
    jmp leave_kernel
9:  call kernel_system_call

leave_kernel:                           // RAX = thread or null
    testq %rax, %rax
    jz idle
    cmpb $0, smp_active(%rip)
    je resume
    movl $0, kernel_lock(%rip)
resume:
    testb $3, FRAME_CS(%rax)
    jz resume_domain
resume_frame:
    movq %rax, %rsp
    pop_registers
    addq $16, %rsp                      // vector, error
    iretq

void_entry:
    call kernel_void_entry
    jmp leave_kernel

rpc_system_call:
    cmpl $RPC_RETURN, %eax
    ja plain_system_call
    movq %rsp, %rbx
    swapgs
    movq %gs:CPU_CURRENT, %rsp
    je rpc_return
rpc_call:                               // RSP = thread; RCX, R11, RBX = RIP, RFLAGS, RSP of the program
    rpc_call_body rpc_slow_call, PROCESS_FROM_USER, rbp, rcx, %r11, rbx, rcx, rbx, r11d
rpc_return:
    rpc_return_body rpc_slow_return, rpc_after, PROCESS_FROM_USER, rcx, r11, rbx

user_to_user:                           // RAX = process; RCX, R11, RBX = RIP, RFLAGS, RSP; RBP = RAX of the program
    movq PROCESS_PAGE_TABLE(%rax), %rax
    movq %rax, %gs:CPU_PAGE_TABLE
    movq %rax, %cr3
enter_user:
    swapgs
    movq %rbp, %rax
    movq %rbx, %rsp
    xorl %ebx, %ebx                     // no kernel addresses for ring 3
    xorl %ebp, %ebp
    xorl %r15d, %r15d
    sysretq

rpc_slow_return:
    movl $RPC_RETURN, %eax
    jmp rpc_slow
rpc_slow_call:
    movl $RPC_CALL, %eax
rpc_slow:                               // the frame, as of any other system call
    push_entry $USER_SS, %rbx, %r11, $USER_CS, SYSTEM_CALL_VECTOR
    swapgs
    jmp system_call_common
rpc_after:                              // as for user_to_user, but RBP = service; RDI: see rpc.h
    movq %rbp, %rax
    push_entry $USER_SS, %rbx, %r11, $USER_CS, RPC_AFTER_VECTOR
    swapgs
    push_registers
    enter_kernel
    call kernel_rpc_after
    jmp leave_kernel

enter_frame:
    movq %rdi, %rax
    jmp resume

enter_idle:
    leaq CPU_SIZE(%rdi), %rsp
idle:                                   // RSP = end of the CPU's stack
    xorl %ebp, %ebp
    movl $0, kernel_lock(%rip)
idle_wait:
    sti
    hlt
    jmp idle_wait
idle_end:

trap_in_kernel:                         // an interrupt while idle, or a fault of the kernel itself
    movq %rsp, %rdi
    strq %rsi
    subl $TSS_SELECTOR, %esi
    shll $11, %esi                      // CPU_SIZE / 16
    leaq cpu_blocks(%rip), %rax
    addq %rax, %rsi
    leaq idle_wait(%rip), %rax
    cmpq %rax, FRAME_RIP(%rdi)
    jb 1f
    leaq idle_end(%rip), %rax
    cmpq %rax, FRAME_RIP(%rdi)
    jae 1f
    cmpq $32, FRAME_VECTOR(%rdi)
    jb 1f
    movq FRAME_VECTOR(%rdi), %rdi
    leaq CPU_SIZE(%rsi), %rsp           // nothing on the idle stack is worth returning to
    xorl %ebp, %ebp
    cmpb $0, smp_active(%rip)
    je 2f
    call acquire_kernel
2:  call kernel_idle_interrupt
    jmp leave_kernel
1:  cmpq $2, FRAME_VECTOR(%rdi)         // a non-maskable interrupt has no meaning here
    je 3f
    leaq CPU_PANIC_STACK(%rsi), %rsp
    call trap_tried
    call kernel_fault
3:  movq %rdi, %rax
    jmp resume_frame

// Takes the big kernel lock; keeps RDI and RSI. While it waits it answers requests to forget translations, since the CPU that
// asks holds the lock until all have answered.
acquire_kernel:
    lock btsl $0, kernel_lock(%rip)
    jnc 3f
1:  pause
    cmpq $0, CPU_FLUSH(%rsi)
    je 2f
    movq CPU_PAGE_TABLE(%rsi), %rax
    movq %rax, %cr3
    movq $0, CPU_FLUSH(%rsi)
2:  testl $1, kernel_lock(%rip)
    jnz 1b
    jmp acquire_kernel
3:  ret

// Where SYSCALL lands during the boot probe. In ring 0: it works. In ring 3 (software KVM) this faults.
probe_entry:
    leaq cpu_blocks + CPU_SIZE(%rip), %rsp
    movl $2, %edi
    call kernel_boot_finish
    jmp leave_kernel

    .section .rodata.calls, "a"
    .balign 8
hot_calls:                              // Kernel/Calls/HotCalls.swift
    .quad kernel_call_null, kernel_call_call, kernel_call_reply_receive, kernel_call_reply
    .quad kernel_call_signal, kernel_call_wait, kernel_call_poll, kernel_call_acknowledge

// Application processors: real mode at TRAMPOLINE to the kernel (Intel SDM vol. 3, 9.4 and 10.8.5).
    .section .rodata.trampoline, "a"
    .balign 16
trampoline_start:
    .code16
    cli
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline_start
    movl $0x11, %eax                    // PE, ET
    movl %eax, %cr0
    ljmpl $KERNEL_CS, $(TRAMPOLINE + trampoline32 - trampoline_start)
    .code32
trampoline32:
    movl $KERNEL_SS, %eax
    movl %eax, %ds
    movl %eax, %ss
    movl $0x6a0, %eax
    movl %eax, %cr4
    movl $(boot_pml4 - KERNEL_BASE), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl $0x80050033, %eax
    movl %eax, %cr0
    ljmpl $0x18, $(TRAMPOLINE + trampoline64 - trampoline_start)
    .code64
trampoline64:
    movabsq $processor_high, %rax
    jmpq *%rax
    .balign 8
trampoline_gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
trampoline_gdt_pointer:
    .word 31
    .long TRAMPOLINE + trampoline_gdt - trampoline_start
trampoline_end:

    .text
processor_high:
    movl $1, %eax
    lock xaddl %eax, processors_started(%rip)
    cmpl $CPU_LIMIT, %eax
    jae 2f
    movl %eax, %ebx
    imulq $CPU_SIZE, %rbx, %rbx
    leaq cpu_blocks(%rip), %rcx
    addq %rcx, %rbx                     // CPU block
    leaq CPU_SIZE(%rbx), %rsp
    call load_tables
    movl %eax, %edi
    movq %rbx, %rsi
    xorl %ebp, %ebp
    pushq %rax
    pushq %rax
    call acquire_kernel
    popq %rdi
    popq %rax
    call kernel_start_processor
    jmp leave_kernel
2:  cli
    hlt
    jmp 2b

// Loads the kernel's address space and descriptor tables. Keeps RAX, RBX, RSP and what System V keeps.
load_tables:
    leaq kernel_pml4(%rip), %rcx
    movabsq $KERNEL_BASE, %rdx
    subq %rdx, %rcx
    movq %rcx, %cr3                     // drops the identity map
    leaq gdt_pointer(%rip), %rcx
    lgdt (%rcx)
    leaq idt_pointer(%rip), %rcx
    lidt (%rcx)
    popq %rcx
    movq %rsp, %rdx
    pushq $KERNEL_SS
    pushq %rdx
    pushq $2
    pushq $KERNEL_CS
    pushq %rcx
    xorl %ecx, %ecx
    movl %ecx, %ds
    movl %ecx, %es
    movl %ecx, %fs
    movl %ecx, %gs
    iretq                               // reloads CS and SS; lretq is not to be had in emulated ring 0

    .data
smp_active:
    .byte 0
    .balign 64
kernel_lock:
    .long 0
    .balign 64
processors_started:
    .long 1

    .section .note.GNU-stack, "", @progbits
