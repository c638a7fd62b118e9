// The walls between the kernel and services in kernel space (HongMeng §4.2): how an interrupt leaves a domain, how a domain calls
// the kernel, and how a thread goes back into it, all in ring 0.
//
// This page, the vectors before it, the tables page and the interrupt stacks are the entry area: all that a domain with a page
// table of its own has of the kernel, and with protection keys (Intel SDM vol. 3, 4.6.2) all of the kernel's data that it may
// read or, the stacks only, write. An interrupt in a domain does not change the stack level, so the gates name an interrupt
// stack: behind the registers of the thread object, except while a domain runs: then the CPU's own in the entry area.
#include "include/layout.h"
#include "registers.h"
#include "rpc.h"

    .globl call_from_table, call_from_keys, return_from_table, return_from_keys, trap_common, domain_gate, resume_domain, domain_keys_write, keys_try, control4_try, trap_tried
    .globl user_to_keys, user_to_table, user_to_none, domain_to_user, domain_to_keys, domain_to_table
    .globl domain_to_none

.macro open_keys                        // PKRS = 0: everything
    movl $PKRS, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    wrmsr
.endm

.macro set_keys instruction             // EAX = PKRS, which this CPU's task state has too
    movl $PKRS, %ecx
    xorl %edx, %edx
\instruction:
    wrmsr
    strq %rcx                           // a wild jump to the instruction above has set no more rights than this CPU's domain has
    leaq task_states - TSS_SELECTOR * 8(%rip), %rdx
    cmpl %eax, TASK_KEYS(%rdx, %rcx, 8)
    jne keys_forged
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
    popq %rcx                           // with the domain's own rights
    movq %rsp, %r11
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
domain_frame:                           // RSP = thread; RCX, R11 = RIP, RSP of the domain
    push_entry $KERNEL_SS, %r11, $0x202, $KERNEL_CS, SYSTEM_CALL_VECTOR
    movq %gs:CPU_TASK, %rcx
    leaq FRAME_SIZE - FRAME_VECTOR(%rsp), %r11
    movq %r11, TASK_STACK(%rcx)
    swapgs
    jmp system_call_common

// Calls from domains and returns to them, which have places of their own in the gate page: only what holds a domain is changed.
// R11, RBX = the domain's RSP and RDX.
.macro from_table
    movq %rsp, %r11
    movq %rdx, %rbx
    movl $(kernel_pml4 - KERNEL_BASE), %esp
    movq %rsp, %cr3
    swapgs
    movq %rsp, %gs:CPU_PAGE_TABLE
.endm
.macro from_keys
    movq %rsp, %r11
    movq %rdx, %rbx
    open_keys
    swapgs
.endm
call_from_table:
    cli
    popq %rbp                           // as above
    from_table
    jmp 1f
call_from_keys:
    cli
    popq %rbp
    from_keys
1:  movq %gs:CPU_CURRENT, %rsp
    rpc_call_body domain_slow_call, PROCESS_FROM_DOMAIN, rcx, rbp, $0x202, r11, r11, r15, ecx
return_from_table:                      // the end of a call returns nowhere in the domain
    cli
    from_table
    jmp 1f
return_from_keys:
    cli
    from_keys
1:  movq %gs:CPU_CURRENT, %rsp
    rpc_return_body domain_slow_return, domain_after, PROCESS_FROM_DOMAIN, r11, rcx, r15

domain_slow_return:
    movl $RPC_RETURN, %eax
    jmp 1f
domain_slow_call:
    movl $RPC_CALL, %eax
1:  movq %rbx, %rdx
    movq %rbp, %rcx
    jmp domain_frame
domain_after:
    xchgq %rcx, %r11
    movq %rbx, %rdx
    movq %r15, %rbx
    xorl %r15d, %r15d
    jmp rpc_after

// Ways into the other domain. From domains: R11, RCX, R15 = RIP, RFLAGS, RSP; RBP, RBX = RAX, RDX. From programs as for user_to_user.
.macro from_user
    movq %gs:CPU_DOMAIN_STACK, %rsp
    movq %gs:CPU_TASK, %r15
    movq %rsp, TASK_STACK(%r15)
    pushq $2                            // an interrupt gate has left the alignment-check flag, which opens users' pages
    popfq
    movq %rcx, %r11
    movq %rbx, %r15
    movq %rdx, %rbx
.endm
domain_to_user:
    movq %gs:CPU_TASK, %rdx
    addq $FRAME_SIZE, %rsp
    movq %rsp, TASK_STACK(%rdx)
    movq PROCESS_PAGE_TABLE(%rax), %rax
    cmpq %rax, %gs:CPU_PAGE_TABLE       // kernel space is in every page table
    je 1f
    movq %rax, %gs:CPU_PAGE_TABLE
    movq %rax, %cr3
1:  movq %rbx, %rdx
    movq %r15, %rbx
    xchgq %rcx, %r11
    jmp enter_user
user_to_table:
    from_user
domain_to_table:
    movq PROCESS_PAGE_TABLE(%rax), %rax
    movq %rax, %gs:CPU_PAGE_TABLE
    swapgs
    movq %rax, %cr3
    jmp enter_domain
user_to_none:
    from_user
domain_to_none:
    swapgs
    jmp enter_domain
user_to_keys:
    from_user
domain_to_keys:
    movq %gs:CPU_TASK, %rcx
    movl PROCESS_KEYS(%rax), %eax
    movl %eax, TASK_KEYS(%rcx)
    swapgs
    set_keys call_keys_write
enter_domain:                           // with its own rights, so by registers alone
    movq %rbx, %rdx
    movq %rbp, %rax
    movq %r15, %rsp
    xorl %r15d, %r15d
    cld
    sti                                 // takes effect behind the jump
    jmpq *%r11
keys_forged:
    ud2

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
    set_keys domain_keys_write
    jmp 2f
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

    .section .note.GNU-stack, "", @progbits
