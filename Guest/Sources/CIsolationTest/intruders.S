// What domains in kernel space try in the isolation test (CIsolationTest.h). Position-independent; the argument is in RDI, mostly
// the address to attack. Whatever survives its attempt exits with code 99.
    .set GATE, 0x7dfffffff000

.macro system_call number
    movl $\number, %eax
    movabsq $GATE, %r11
    call *%r11
.endm

.macro intruder name
    .balign 16
    .globl intruder_\name
    .hidden intruder_\name
intruder_\name:
.endm

    .section .rodata
    .balign 4096
    .globl intruders_start
    .hidden intruders_start
intruders_start:
intruder exit                           // with its argument as code
    system_call 17
    ud2
intruder read
    movq (%rdi), %rax
    jmp survived
intruder write
    movq %rdi, (%rdi)
    jmp survived
intruder execute
    callq *%rdi
    jmp survived
intruder stack                          // of another: an interrupt or a call would push there
    leaq 64(%rdi), %rsp
    pushq %rax
    jmp survived
intruder gate_stack                     // the gate entered with a stack that is not its own
    movq %rdi, %rsp
    movl $0, %eax
    movabsq $GATE, %r11
    jmpq *%r11
intruder gate_write
    movabsq $GATE, %rax
    movb $0xc3, (%rax)
    jmp survived
intruder info_write
    movabsq $GATE - 0x1000, %rax
    movq %rax, (%rax)
    jmp survived
intruder code_write
    leaq intruder_code_write(%rip), %rax
    movb $0xc3, (%rax)
    jmp survived
intruder keys_forged                    // RDI = the kernel's instruction that sets the rights, RSI = an address
    movq %rsi, %r12
    leaq -256(%rsp), %rsp               // what that code would pop
    leaq 1f(%rip), %rax
    movq %rax, 136(%rsp)
    movl $0x6e1, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
    jmpq *%rdi
1:  movq (%r12), %rax
    jmp survived
intruder spin
    jmp intruder_spin
intruder undefined
    ud2
intruder divide
    xorl %ecx, %ecx
    divl %ecx
    jmp survived
intruder overflow                       // its own stack
    pushq %rax
    jmp intruder_overflow
intruder echo                           // RDI = two notifications in 32 bits each: waits for one, signals the other
    movl %edi, %ebx
    movq %rdi, %rbp
    shrq $32, %rbp
    movq $0x1234567, %r12
1:  movl %ebx, %edi
    movq $-1, %rsi
    system_call 5
    testq %rax, %rax
    js survived
    cmpq $0x1234567, %r12
    jne survived
    movq %rax, %rsi
    movl %ebp, %edi
    system_call 4
    jmp 1b
survived:
    movl $99, %edi
    system_call 17
    ud2
    .balign 4096
    .globl intruders_end
    .hidden intruders_end
intruders_end:

    .section .note.GNU-stack, "", @progbits
