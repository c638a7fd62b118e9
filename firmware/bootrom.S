// The boot ROM: from the reset vector to the kernel's 32-bit entry, as docs/platform.md ("Boot contract") describes it.
// Intel SDM vol. 3, §9.1.4 (first instruction) and §9.9.1 (switching to protected mode).
//
// One page, which the VMM puts at the end of the first 4 GiB. It is data to the host's linker: nothing in it needs a
// relocation, because every address is a difference of two labels plus a constant.

        .set rom_base, 0xfffff000               // guest-physical address of the page
        .set rom_segment_offset, 0xf000         // the same as an offset from CS.base 0xffff0000
        .set mailbox, 0x8fe0                    // magic, entry, EBX, ESI: 32 bits each
        .set mailbox_magic, 0x4d4f4243
        .set power_control, 0x600
        .set exit_without_kernel, 0x100 + 70

        .section .rodata.castor_boot_rom, "a", @progbits
        .balign 4096
        .globl castor_boot_rom
        .type castor_boot_rom, @object
        .size castor_boot_rom, 4096
castor_boot_rom:

        .code16
real_mode:
        cli
        cld
        lgdtl   %cs:(gdt_pointer - castor_boot_rom + rom_segment_offset)
        movl    %cr0, %eax
        andl    $0x9fffffff, %eax               // caches on: CD and NW off
        orl     $1, %eax                        // PE
        movl    %eax, %cr0
        ljmpl   $0x10, $(protected_mode - castor_boot_rom + rom_base)

        .code32
protected_mode:
        movl    $0x18, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %fs
        movl    %eax, %gs
        movl    %eax, %ss
        cmpl    $mailbox_magic, mailbox
        jne     no_kernel
        xorl    %eax, %eax
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        xorl    %edi, %edi
        xorl    %ebp, %ebp
        xorl    %esp, %esp
        movl    mailbox + 8, %ebx
        movl    mailbox + 12, %esi
        jmpl    *mailbox + 4

// No VMM left a kernel: end the VM.
no_kernel:
        movl    $exit_without_kernel, %eax
        movw    $power_control, %dx
        outl    %eax, %dx
1:      hlt
        jmp     1b

        .balign 8
// Accessed bits are set, so that the processor never writes to the ROM.
gdt:
        .quad   0
        .quad   0
        .quad   0x00cf9b000000ffff              // 0x10: code, base 0, limit 4 GiB, 32-bit
        .quad   0x00cf93000000ffff              // 0x18: data, base 0, limit 4 GiB
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt - castor_boot_rom + rom_base

        .org    0xff0
        .code16
reset_vector:
        jmp     real_mode
        .org    0x1000

        .section .note.GNU-stack, "", @progbits
