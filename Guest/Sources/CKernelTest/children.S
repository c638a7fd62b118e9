// See CKernelTest.h. Children get their argument in RDI.
    .set ENTRY, 0x7efffffff000

.macro system_call number
    movl $\number, %eax
    movabsq $ENTRY, %rcx
    call *%rcx
.endm

.macro child name
    .balign 16
    .globl child_\name
    .hidden child_\name
child_\name:
.endm

    .section .rodata
    .balign 4096
    .globl children_start
    .hidden children_start
children_start:
child exit
    system_call 17
    ud2
child undefined
    ud2
child breakpoint
    int3
    ud2
child divide
    xorl %ecx, %ecx
    divl %ecx
child null_read
    movq 0, %rax
    ud2
child kernel_read
    movabsq $0x7f8000600000, %rax
    movq (%rax), %rax
    ud2
child kernel_write
    movabsq $0x7f0000000000, %rax
    movq %rax, (%rax)
    ud2
child info_write
    movabsq $0x7effffffe000, %rax
    movq %rax, (%rax)
    ud2
child code_write
    leaq child_code_write(%rip), %rax
    movq %rax, (%rax)
    ud2
child stack_execute
    jmpq *%rsp
child disable_interrupts
    cli
    ud2
child port
    movl $0x600, %edx
    xorl %eax, %eax
    outl %eax, %dx
    ud2
child halt
    hlt
    ud2
child msr
    movl $0xc0000080, %ecx
    rdmsr
    ud2
child interrupt
    int $0x30
    ud2
child noncanonical
    movabsq $0x8000000000000000, %rax
    movq (%rax), %rax
    ud2
child spin
    jmp child_spin
child touch                             // reads the word at its argument for ever
    movq (%rdi), %rax
    jmp child_touch
child call                              // calls through its argument; exits with the status, negated
    system_call 1
    negl %eax
    movl %eax, %edi
    system_call 17
    ud2
child serve_and_die                     // receives on its argument, and faults instead of replying
    system_call 2
    ud2
child receive_and_die                   // receives once with a reply, then exits with the second word
    system_call 2
    movl %esi, %ebx
    system_call 3
    movl %ebx, %edi
    system_call 17
    ud2
child fuzz                              // random system calls for ever; the argument is the seed
    movq %rdi, %rbx
    orq $1, %rbx
1:  call 8f
    movq %rax, %rbp
    andl $63, %ebp
    cmpl $11, %ebp                      // not: threadExit, processExit, consoleWrite, consoleRead
    je 1b
    cmpl $17, %ebp
    je 1b
    cmpl $48, %ebp
    je 1b
    cmpl $49, %ebp
    je 1b
    call 9f
    movq %rax, %rdi
    call 9f
    movq %rax, %rsi
    call 9f
    movq %rax, %rdx
    call 9f
    movq %rax, %r10
    call 9f
    movq %rax, %r8
    call 9f
    movq %rax, %r9
    call 9f
    movq %rax, %r15
    movl %ebp, %eax
    cmpl $5, %eax                       // waits have a deadline that is past
    jne 2f
    xorl %esi, %esi
2:  cmpl $9, %eax
    jne 3f
    xorl %edi, %edi
3:  cmpl $1, %eax                       // calls and receives would wait for ever: one in 64 only
    je 4f
    cmpl $2, %eax
    jne 5f
4:  testl $0xfc0, %ebx
    jnz 1b
5:  movabsq $ENTRY, %rcx
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
9:                                      // an argument: small, page-like, an address of its own, or anything
    call 8b
    movq %rax, %rcx
    shrq $60, %rcx
    cmpl $6, %ecx
    jb 91f
    cmpl $9, %ecx
    jb 92f
    cmpl $13, %ecx
    jb 93f
    ret
91: andl $15, %eax
    ret
92: andl $0xff000, %eax
    ret
93: andl $0x1fff, %eax
    addq $0x400000, %rax
    ret
    .balign 4096
    .globl children_end
    .hidden children_end
children_end:

    .text
    .globl measure_null
    .hidden measure_null
measure_null:
    pushq %rbx
    movq %rdi, %rbx
1:  system_call 0
    decq %rbx
    jnz 1b
    popq %rbx
    ret

    .globl measure_signal
    .hidden measure_signal
measure_signal:
    pushq %rbx
    pushq %rbp
    movq %rdi, %rbp
    movq %rsi, %rbx
1:  movq %rbp, %rdi
    movl $1, %esi
    system_call 4
    movq %rbp, %rdi
    system_call 6
    decq %rbx
    jnz 1b
    popq %rbp
    popq %rbx
    ret

    .globl measure_calls
    .hidden measure_calls
measure_calls:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rdi, %rbp
    movq %rsi, %rbx
    xorl %r15d, %r15d
1:  movq %rbp, %rdi
    system_call 1
    testq %rax, %rax
    js 2f
    decq %rbx
    jnz 1b
2:  popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .globl serve_calls
    .hidden serve_calls
serve_calls:
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    xorl %r15d, %r15d
1:  system_call 2
    testq %rax, %rax
    jns 1b
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    ret

    .globl float_registers_survive
    .hidden float_registers_survive
float_registers_survive:
    movq %rdi, %xmm0
    movq %rsi, %rcx
    fninit
    pushq %rdi
    fildq (%rsp)
    .irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movaps %xmm0, %xmm\n
    .endr
1:  rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    cmpq %rcx, %rax
    jb 1b
    xorl %eax, %eax
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movq %xmm\n, %rdx
    cmpq %rdx, %rdi
    jne 2f
    .endr
    pushq $0
    fistpq (%rsp)
    popq %rdx
    cmpq %rdx, %rdi
    jne 2f
    movl $1, %eax
2:  popq %rdi
    ret

    .section .note.GNU-stack, "", @progbits
