// What compilers expect of a C library, by string instructions.
    .text
    .globl memcpy, memmove, memset
memcpy:
    movq %rdi, %rax
    movq %rdx, %rcx
    rep movsb
    ret

memmove:
    movq %rdi, %rax
    movq %rdx, %rcx
    movq %rdi, %r8
    subq %rsi, %r8
    cmpq %rdx, %r8                      // destination inside the source: copy backwards
    jb 1f
    rep movsb
    ret
1:  leaq -1(%rdi, %rdx), %rdi
    leaq -1(%rsi, %rdx), %rsi
    std
    rep movsb
    cld
    ret

memset:
    movq %rdi, %r8
    movl %esi, %eax
    movq %rdx, %rcx
    rep stosb
    movq %r8, %rax
    ret

    .section .note.GNU-stack, "", @progbits
