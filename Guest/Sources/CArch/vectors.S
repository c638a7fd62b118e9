// The interrupt gates and the first instructions behind each.
#include "include/layout.h"

    .section .rodata.tables, "a"
    .balign 16
    .globl interrupt_gates
interrupt_gates:                        // 64-bit interrupt gates (Intel SDM vol. 3, 6.14.1)
    .set vector, 0
    .rept 256
    .set address, TEXT_BASE + vector * 16
    .set stack, 4                       // interrupt-stack-table entry: NMI 1, double fault 2, machine check 3, see domain.S 4
    .if vector == 2
    .set stack, 1
    .elseif vector == 8
    .set stack, 2
    .elseif vector == 18
    .set stack, 3
    .endif
    .set level, 0
    .if vector == 3 || vector == 4
    .set level, 3
    .endif
    .word address & 0xffff, KERNEL_CS
    .byte stack, 0x8e | (level << 5)
    .word (address >> 16) & 0xffff
    .long address >> 32, 0
    .set vector, vector + 1
    .endr

    .section .text.vectors, "ax"
    .globl interrupt_stubs
interrupt_stubs:                        // at TEXT_BASE, 16 bytes each
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == SYSTEM_CALL_VECTOR
    jmp system_call_interrupt
    .else
    .if vector != 8 && vector != 17 && vector != 21 && !(vector >= 10 && vector <= 14)
    pushq $0
    .endif
    pushq $vector
    jmp trap_common
    .endif
    .set vector, vector + 1
    .endr

    .section .note.GNU-stack, "", @progbits
