// Start of a program and of its threads, and the way into the kernel. Convention: PolluxABI, SystemCall.swift.

#ifdef POLLUX_KERNEL_SPACE
    .set SYSTEM_CALL_ENTRY, 0x7dfffffff000  // the gate: the same convention, without a change of ring,
    .set CALL_ENTRY, SYSTEM_CALL_ENTRY + 16 // but with places of their own for rpcCall and rpcReturn
    .set RETURN_ENTRY, SYSTEM_CALL_ENTRY + 32
#else
    .set SYSTEM_CALL_ENTRY, 0x7efffffff000
    .set CALL_ENTRY, SYSTEM_CALL_ENTRY
    .set RETURN_ENTRY, SYSTEM_CALL_ENTRY
#endif

.macro rpc_return
#ifndef POLLUX_KERNEL_SPACE
    movl $129, %eax
#endif
    movabsq $RETURN_ENTRY, %r11
    jmpq *%r11
.endm

// The control-flow entry table: where threads and calls may begin in a service in kernel space (HongMeng §4.2). Offsets from
// each entry's own place.
    .section .note.pollux.entries, "a", @note
    .balign 4
    .long 7, 16, 1
    .asciz "Pollux"
    .balign 4
    .long _start - ., pollux_thread_entry - ., pollux_rpc_entry - ., pollux_rpc_entry_short - .

    .section .text.start, "ax"
    .global _start
    .type _start, @function
_start:
    movq %rdi, pollux_start_argument(%rip)
    xorl %ebp, %ebp
    andq $-16, %rsp
    call main
    movl $17, %eax              // processExit
    xorl %edi, %edi
    movabsq $SYSTEM_CALL_ENTRY, %r11
    call *%r11
    ud2

    .text
    .global pollux_thread_entry
    .hidden pollux_thread_entry
    .type pollux_thread_entry, @function
pollux_thread_entry:
    xorl %ebp, %ebp
    andq $-16, %rsp
    call pollux_thread_main
    movl $11, %eax              // threadExit
    movabsq $SYSTEM_CALL_ENTRY, %r11
    call *%r11
    ud2

// int64_t pollux_system_call(number, a, b, c, d, e, f): rdi rsi rdx rcx r8 r9 8(%rsp)
    .global pollux_system_call
    .hidden pollux_system_call
    .type pollux_system_call, @function
pollux_system_call:
    movq %rdi, %rax
    movq %rsi, %rdi
    movq %rdx, %rsi
    movq %rcx, %rdx
    movq %r8, %r10
    movq %r9, %r8
    movq 8(%rsp), %r9
    movabsq $SYSTEM_CALL_ENTRY, %r11
    call *%r11
    ret

// int64_t pollux_message_call(number, message)
    .global pollux_message_call
    .hidden pollux_message_call
    .type pollux_message_call, @function
pollux_message_call:
    pushq %rbp
    movq %rsp, %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsi, %rbx
    movq %rdi, %rax
    movq 72(%rbx), %rdi
    movq 0(%rbx), %rsi
    movq 8(%rbx), %rdx
    movq 16(%rbx), %r10
    movq 24(%rbx), %r8
    movq 32(%rbx), %r9
    movq 40(%rbx), %r12
    movq 48(%rbx), %r13
    movq 56(%rbx), %r14
    movq 64(%rbx), %r15
    movabsq $SYSTEM_CALL_ENTRY, %r11
    call *%r11
    movq %rdi, 72(%rbx)
    movq %rsi, 0(%rbx)
    movq %rdx, 8(%rbx)
    movq %r10, 16(%rbx)
    movq %r8, 24(%rbx)
    movq %r9, 32(%rbx)
    movq %r12, 40(%rbx)
    movq %r13, 48(%rbx)
    movq %r14, 56(%rbx)
    movq %r15, 64(%rbx)
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret

// int64_t pollux_rpc_message(number, message, deadline)
    .global pollux_rpc_message
    .hidden pollux_rpc_message
    .type pollux_rpc_message, @function
pollux_rpc_message:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rsi                  // the call keeps RSP alone
    movq %rdi, %rax
    movq %rdx, %rbx
    movq %rsi, %rbp
    movq 72(%rbp), %rdi
    movq 0(%rbp), %rsi
    movq 8(%rbp), %rdx
    movq 16(%rbp), %r10
    movq 24(%rbp), %r8
    movq 32(%rbp), %r9
    movq 40(%rbp), %r12
    movq 48(%rbp), %r13
    movq 56(%rbp), %r14
    movq 64(%rbp), %r15
    movabsq $CALL_ENTRY, %r11
    cmpl $128, %eax
    je 1f
    movabsq $SYSTEM_CALL_ENTRY, %r11
1:  call *%r11
    popq %rbp
    movq %rsi, 0(%rbp)
    movq %rdx, 8(%rbp)
    movq %r10, 16(%rbp)
    movq %r8, 24(%rbp)
    movq %r9, 32(%rbp)
    movq %r12, 40(%rbp)
    movq %r13, 48(%rbp)
    movq %r14, 56(%rbp)
    movq %r15, 64(%rbp)
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret

// Server's side of a call: RAX = context, RDI = badge, words and handle in their registers, RSP = the stack's end.
    .global pollux_rpc_entry
    .hidden pollux_rpc_entry
    .type pollux_rpc_entry, @function
pollux_rpc_entry:
    subq $16, %rsp              // keeps the alignment; `target` lies here
    pushq %r15
    pushq %r14
    pushq %r13
    pushq %r12
    pushq %r9
    pushq %r8
    pushq %r10
    pushq %rdx
    pushq %rsi
    subq $8, %rsp
    movq %rdi, %rsi             // badge
    movq %rax, %rdi             // context
    leaq 8(%rsp), %rdx          // message
    call pollux_rpc_main
    addq $8, %rsp
    popq %rsi
    popq %rdx
    popq %r10
    popq %r8
    popq %r9
    popq %r12
    popq %r13
    popq %r14
    popq %r15
    rpc_return

    .global pollux_rpc_entry_short
    .hidden pollux_rpc_entry_short
    .type pollux_rpc_entry_short, @function
pollux_rpc_entry_short:
    movq %r10, %rcx
    call *%rax
    movq %rax, %rsi
    xorl %r15d, %r15d
    rpc_return

// The memory functions that the compiler calls.
    .global memcpy
    .type memcpy, @function
memcpy:
    movq %rdi, %rax
    movq %rdx, %rcx
    rep movsb
    ret

    .global memset
    .type memset, @function
memset:
    movq %rdi, %r8
    movl %esi, %eax
    movq %rdx, %rcx
    rep stosb
    movq %r8, %rax
    ret

    .global memmove
    .type memmove, @function
memmove:
    movq %rdi, %rax
    movq %rdi, %rcx
    subq %rsi, %rcx
    cmpq %rdx, %rcx             // destination − source, unsigned: below the length means that a forward copy overwrites
    movq %rdx, %rcx
    jb 1f
    rep movsb
    ret
1:  leaq -1(%rdi,%rdx), %rdi
    leaq -1(%rsi,%rdx), %rsi
    std
    rep movsb
    cld
    ret

    .global memcmp
    .type memcmp, @function
memcmp:
    xorl %eax, %eax
    movq %rdx, %rcx
    cmpq %rcx, %rcx             // equal, if there is nothing to compare
    repe cmpsb
    je 1f
    movzbl -1(%rdi), %eax
    movzbl -1(%rsi), %ecx
    subl %ecx, %eax
1:  ret

    .data
    .balign 8
    .global pollux_start_argument
    .hidden pollux_start_argument
pollux_start_argument: .quad 0

    .section .note.GNU-stack, "", @progbits
