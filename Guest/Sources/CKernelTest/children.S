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

// A server that does what the script in word 0 says, four bits a step from the lowest; word 1 counts the servers on the way. Handles
// 1 to 3 of its process are connections or nothing, handle 4 a notification.
    .globl child_rpc_server
    .hidden child_rpc_server
child_rpc_server:
    movq %rsi, %rbx
    leaq 1(%rdx), %rbp
1:  movl %ebx, %eax
    andl $15, %eax
    shrq $4, %rbx
    testl %eax, %eax
    jz 20f
    cmpl $3, %eax
    jbe 21f
    cmpl $4, %eax
    je 24f
    cmpl $5, %eax
    je 25f
    cmpl $6, %eax
    je 26f
    cmpl $7, %eax
    je 27f
    cmpl $8, %eax
    je 28f
    cmpl $9, %eax
    je 29f
    cmpl $10, %eax
    je 30f
    cmpl $11, %eax
    je 31f
    cmpl $12, %eax
    je 32f
    jmp 33f
20: xorl %esi, %esi                     // 0: return
    movq %rbp, %rdx
22: xorl %r15d, %r15d
    system_call 129
    ud2
21: movl %eax, %edi                     // 1…3: call through that handle with the rest of the script, and return what comes
    movq %rbx, %rsi
    movq %rbp, %rdx
    xorl %r15d, %r15d
    system_call 128
    testq %rax, %rax
    jns 22b
    movq %rax, %rsi
    jmp 22b
24: ud2                                 // 4: a fault
25: movl $7, %edi                       // 5: the process ends
    system_call 17
26: system_call 11                      // 6: the thread ends
    ud2
27: movl $4, %edi                       // 7: wait for the notification
    movq $-1, %rsi
    system_call 5
    jmp 1b
28: system_call 0                       // 8: a system call
    jmp 1b
29: rdtsc                               // 9: run for 2²⁰ ticks
    shlq $32, %rdx
    leaq 0x100000(%rax, %rdx), %rcx
291:rdtsc
    shlq $32, %rdx
    orq %rdx, %rax
    cmpq %rcx, %rax
    jb 291b
    jmp 1b
30: system_call 8                       // 10: yield
    jmp 1b
31: rdtsc                               // 11: sleep for 2²⁰ ticks
    shlq $32, %rdx
    leaq 0x100000(%rax, %rdx), %rdi
    system_call 9
    jmp 1b
32: jmp 32b                             // 12: run for ever
33: movq %r15, %rdi                     // 13: sum up the granted page, and write the sum at its start
    btrq $63, %rdi
    andq $-4096, %rdi
    xorl %eax, %eax
    movl $512, %ecx
331:addq -8(%rdi, %rcx, 8), %rax
    decl %ecx
    jnz 331b
    movq %rax, (%rdi)
    movq %rax, %rbp
    jmp 1b

// The shortest server, with the instructions of CPollux's pollux_rpc_entry_short around an empty handler.
    .globl child_rpc_null
    .hidden child_rpc_null
child_rpc_null:
    movq %r10, %rcx
    call 1f
    movq %rax, %rsi
    xorl %r15d, %r15d
    movl $129, %eax
    movabsq $ENTRY, %r11
    jmpq *%r11
1:  xorl %eax, %eax
    xorl %edx, %edx
    ret

// A client: calls handle 1 with script RDI, again and again for RSI rounds, then exits with the last error or 0.
    .globl child_rpc_client
    .hidden child_rpc_client
child_rpc_client:
    pushq %rdi
    pushq $0
1:  movl $1, %edi
    movq 8(%rsp), %rsi
    xorl %edx, %edx
    xorl %r15d, %r15d
    system_call 128
    movq %rax, (%rsp)
    jmp 1b
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

    .globl measure_rpc
    .hidden measure_rpc
measure_rpc:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    pushq %rdi
    pushq %rsi
1:  movq 8(%rsp), %rdi
    xorl %r15d, %r15d
    system_call 128
    testq %rax, %rax
    js 2f
    decq (%rsp)
    jnz 1b
2:  addq $16, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

// Answer EDI + 1 if the thread goes on behind an instruction that faults.
    .globl passed_undefined, passed_protection
    .hidden passed_undefined, passed_protection
passed_undefined:
    leal 1(%rdi), %eax
    ud2
    ret
passed_protection:
    leal 1(%rdi), %eax
    movabsq $0x800000000000, %rcx
    movl (%rcx), %ecx
    ret

// Fills all registers from RSI, loads from the address RDI, and says whether all still hold what they held.
    .globl registers_survive_fault
    .hidden registers_survive_fault
registers_survive_fault:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movq %rsi, %xmm\n
    .endr
    .irp n, rax,rbx,rcx,rdx,rbp,r8,r9,r10,r11,r12,r13,r14,r15
    leaq 1(%rsi), %\n
    .endr
    std
    cmpq $0, (%rdi)
    pushfq
    cld
    leaq 1(%rsi), %rdi
    .irp n, rax,rbx,rcx,rdx,rbp,r8,r9,r10,r11,r12,r13,r14,r15
    cmpq %\n, %rdi
    jne 2f
    .endr
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    movq %xmm\n, %rdx
    cmpq %rdx, %rsi
    jne 2f
    .endr
    xorl %eax, %eax
    btl $10, (%rsp)                     // the direction flag too
    adcl $0, %eax
    jmp 3f
2:  xorl %eax, %eax
3:  addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

    .section .note.GNU-stack, "", @progbits
