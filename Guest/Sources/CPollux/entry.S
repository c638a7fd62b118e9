// Start of a program and of its threads, and the way into the kernel. Convention: PolluxABI, SystemCall.swift.

    .set SYSTEM_CALL_ENTRY, 0x7efffffff000

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
