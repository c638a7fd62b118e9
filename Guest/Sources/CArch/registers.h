// The saved registers of struct trap_frame below the vector: how they are pushed and popped.
.macro push_registers
    .irp register, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    pushq %\register
    .endr
.endm
// RSP = thread: what an interrupt would have pushed, with RIP from RCX.
.macro push_entry ss, sp, flags, cs, vector
    addq $FRAME_SIZE, %rsp
    pushq \ss
    pushq \sp
    pushq \flags
    pushq \cs
    pushq %rcx
    pushq $0
    pushq $\vector
.endm
.macro pop_registers
    .irp register, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax
    popq %\register
    .endr
.endm
