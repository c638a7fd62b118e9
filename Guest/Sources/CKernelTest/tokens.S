// Programs that the token tests run in processes of their own (TokenTests.swift). Their argument arrives in RDI.
    .set ENTRY, 0x7efffffff000

    .section .rodata
    .balign 4096
    .globl token_children_start
    .hidden token_children_start
token_children_start:
// Performs system calls for the test: the page at RDI holds a state (1: a call is there; 0: its result is), the number, six arguments
// and the result.
    .globl token_child_serve
    .hidden token_child_serve
token_child_serve:
    movq %rdi, %rbx
1:  movl $1000, %ecx
3:  cmpq $1, (%rbx)
    je 2f
    pause
    decl %ecx
    jnz 3b
    movl $8, %eax                       // threadYield
    movabsq $ENTRY, %rcx
    call *%rcx
    jmp 1b
2:  movq 8(%rbx), %rax
    movq 16(%rbx), %rdi
    movq 24(%rbx), %rsi
    movq 32(%rbx), %rdx
    movq 40(%rbx), %r10
    movq 48(%rbx), %r8
    movq 56(%rbx), %r9
    movabsq $ENTRY, %rcx
    call *%rcx
    movq %rax, 64(%rbx)
    movq $0, (%rbx)
    jmp 1b
// Stores to the word at its argument for ever.
    .globl token_child_store
    .hidden token_child_store
token_child_store:
    incq (%rdi)
    jmp token_child_store
// Loads the word at its argument for ever.
    .globl token_child_load
    .hidden token_child_load
token_child_load:
    movq (%rdi), %rax
    jmp token_child_load
// Stores once, then exits with code 7.
    .globl token_child_store_once
    .hidden token_child_store_once
token_child_store_once:
    movq $1, (%rdi)
    movl $7, %edi
    movl $17, %eax
    movabsq $ENTRY, %rcx
    call *%rcx
    ud2
// Waits by the token at its argument; exits with the result, negated.
    .globl token_child_wait
    .hidden token_child_wait
token_child_wait:
    movq $-1, %rsi
    movl $86, %eax
    movabsq $ENTRY, %rcx
    call *%rcx
    negl %eax
    movl %eax, %edi
    movl $17, %eax
    movabsq $ENTRY, %rcx
    call *%rcx
    ud2
// Random token calls (80 to 89) for ever, with alleged tokens of its own address space and small numbers; the argument is the seed.
    .globl token_child_random
    .hidden token_child_random
token_child_random:
    movq %rdi, %rbx
    orq $1, %rbx
1:  call 8f
    xorl %edx, %edx
    movl $10, %ecx
    movl %eax, %eax
    divl %ecx
    leal 80(%rdx), %ebp
    call 9f
    movq %rax, %rdi
    call 9f
    movq %rax, %rsi
    call 9f
    movq %rax, %rdx
    call 8f
    movq %rax, %r10
    andl $15, %r10d
    cmpl $86, %ebp                      // waits have a deadline that is past
    jne 2f
    xorl %esi, %esi
2:  movl %ebp, %eax
    movabsq $ENTRY, %rcx
    call *%rcx
    jmp 1b
8:                                      // xorshift64: state in RBX, result in RAX
    movq %rbx, %rax
    shlq $13, %rax
    xorq %rax, %rbx
    movq %rbx, %rax
    shrq $7, %rax
    xorq %rax, %rbx
    movq %rbx, %rax
    shlq $17, %rax
    xorq %rax, %rbx
    movq %rbx, %rax
    ret
9:  call 8b                             // an argument: small, a token of slot 0 … 63, the stack, or anything
    movq %rax, %rcx
    shrq $61, %rcx
    cmpl $3, %ecx
    jb 91f
    cmpl $6, %ecx
    jb 92f
    je 93f
    ret
91: andl $15, %eax
    ret
92: andl $63, %eax
    shlq $12, %rax
    movabsq $0x7e0000000000, %rcx
    addq %rcx, %rax
    ret
93: leaq -64(%rsp), %rax
    andq $-8, %rax
    ret
    .balign 4096
    .globl token_children_end
    .hidden token_children_end
token_children_end:

    .section .note.GNU-stack, "", @progbits
