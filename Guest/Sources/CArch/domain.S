// The walls between the kernel and services in kernel space (HongMeng §4.2): how an interrupt leaves a domain, how a domain calls
// the kernel, and how a thread goes back into it, all in ring 0.
//
// This page, the vectors before it, the tables page and the interrupt stacks are the entry area: all that a domain with a page
// table of its own has of the kernel, and with protection keys (Intel SDM vol. 3, 4.6.2) all of the kernel's data that it may
// read or, the stacks only, write. An interrupt in a domain does not change the stack level, so the gates name an interrupt
// stack: behind the registers of the thread object, except while a domain runs: then the CPU's own in the entry area.
#include "include/layout.h"
#include "registers.h"

    .globl trap_common, domain_gate, resume_domain, domain_keys_write, keys_try, control4_try, trap_tried
    .globl domain_stacks

.macro open_keys                        // PKRS = 0: everything
    movl $PKRS, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
.endm

    .section .text.domain, "ax"
    .balign 4096
trap_common:
    push_registers
    testb $3, FRAME_CS(%rsp)
    jnz trap_user
    leaq domain_stacks(%rip), %rcx
    movq %rsp, %rax
    subq %rcx, %rax
    cmpq $CPU_LIMIT * 4096, %rax
    jae trap_in_kernel
    cmpb $0, domain_keys(%rip)
    je 1f
    open_keys
    swapgs
    jmp 2f
1:  movl $(kernel_pml4 - KERNEL_BASE), %eax
    movq %rax, %cr3
    swapgs
    movq %rax, %gs:CPU_PAGE_TABLE
2:  movq %gs:CPU_CURRENT, %rbx
    movq %gs:CPU_TASK, %rax
    swapgs
    cld
    movq %rsp, %rsi
    movq %rbx, %rdi
    movl $FRAME_SIZE / 8, %ecx
    rep movsq
    movq %rdi, TASK_STACK(%rax)
    movq %rbx, %rsp
    jmp trap_user

// Where a domain's system calls arrive, through the gate page: RSP = its stack with the return address. RCX and R11 are free.
domain_gate:
    cli
    cmpl $RPC_RETURN, %eax              // the end of a call returns nowhere in the domain
    je 3f
    popq %rcx                           // with the domain's own rights
3:  movq %rsp, %r11
    cmpb $0, domain_keys(%rip)
    je 1f
    strq %rsp
    shlq $8, %rsp
    addq domain_stack_base(%rip), %rsp  // the CPU's interrupt stack
    pushq %rcx
    pushq %rdx
    pushq %rax
    open_keys
    popq %rax
    popq %rdx
    popq %rcx
    swapgs
    jmp 2f
1:  movl $(kernel_pml4 - KERNEL_BASE), %esp
    movq %rsp, %cr3
    swapgs
    movq %rsp, %gs:CPU_PAGE_TABLE
2:  movq %gs:CPU_CURRENT, %rsp
    swapgs
    addq $FRAME_SIZE, %rsp
    pushq $KERNEL_SS
    pushq %r11
    pushq $0x202
    pushq $KERNEL_CS
    pushq %rcx
    pushq $0
    pushq $SYSTEM_CALL_VECTOR
    movq THREAD_CPU - FRAME_VECTOR(%rsp), %rcx
    movq CPU_TASK(%rcx), %rcx
    leaq FRAME_SIZE - FRAME_VECTOR(%rsp), %r11
    movq %r11, TASK_STACK(%rcx)
    jmp system_call_common

resume_domain:                          // RAX = a thread in kernel space
    movq THREAD_CPU(%rax), %rbx
    movq THREAD_PROCESS(%rax), %rdx
    movq CPU_TASK(%rbx), %rbp
    movq CPU_DOMAIN_STACK(%rbx), %rdi
    movq %rdi, TASK_STACK(%rbp)
    subq $FRAME_SIZE, %rdi
    movq %rdi, %rsp
    movq %rax, %rsi
    movl $FRAME_SIZE / 8, %ecx
    rep movsq
    movl PROCESS_KEYS(%rdx), %eax
    cmpb $0, domain_keys(%rip)
    je 1f
    testl %eax, %eax
    jz 2f                               // IC0: the kernel's own domain
    movl %eax, TASK_KEYS(%rbp)
    movl $PKRS, %ecx
    xorl %edx, %edx
domain_keys_write:
    wrmsr
    strq %rcx                           // a wild jump to the instruction above has set no more rights than this CPU's domain has
    subl $TSS_SELECTOR, %ecx
    shll $3, %ecx
    leaq task_states(%rip), %rdx
    cmpl %eax, TASK_KEYS(%rdx, %rcx)
    je 2f
    ud2
1:  movq PROCESS_PAGE_TABLE(%rdx), %rax
    movq %rax, CPU_PAGE_TABLE(%rbx)
    movq %rax, %cr3
2:  pop_registers
    addq $16, %rsp                      // vector, error
    iretq

// Whether protection keys work, by trying: RDI = an address, RSI = PKRS. → the error code of the page fault, or 0.
keys_try:
    movl $PKRS, %ecx
    movl %esi, %eax
    xorl %edx, %edx
    wrmsr
    movq (%rdi), %rax
    xorl %esi, %esi
keys_tried:
    open_keys
    movl %esi, %eax
    ret
// Sets bits of CR4. → whether the processor has them.
control4_try:
    movq %cr4, %rax
    orq %rdi, %rax
    movq %rax, %cr4
    movl $1, %eax
    ret
control4_tried:
    xorl %eax, %eax
    ret
// RDI = frame of a fault in ring 0. If one of the two above tried something, that is its result; otherwise returns.
trap_tried:
    movq FRAME_RIP(%rdi), %rax
    leaq keys_try(%rip), %rcx
    subq %rcx, %rax
    cmpq $control4_tried - keys_try, %rax
    jae 1f
    movq FRAME_RSP(%rdi), %rsp
    leaq control4_tried(%rip), %rdx
    cmpq $control4_try - keys_try, %rax
    jae 2f
    movq FRAME_ERROR(%rdi), %rsi
    leaq keys_tried(%rip), %rdx
2:  jmpq *%rdx
1:  ret

    .section .bss.aligned, "aw", @nobits
    .balign 4096
domain_stacks:                          // of interrupts in domains, a page a CPU
    .skip CPU_LIMIT * 4096

    .section .note.GNU-stack, "", @progbits
