// The kernel's fixed addresses, shared by assembly and Swift. See linker/kernel.ld and PolluxABI/Layout.swift.
#ifndef POLLUX_LAYOUT_H
#define POLLUX_LAYOUT_H

#define KERNEL_BASE 0x7f8000000000  // PML4 slot 255: kernel image, virtual − physical
#define DIRECT_BASE 0x7f0000000000  // PML4 slot 254: all of RAM and devices, virtual − physical
#define TEXT_BASE 0x7f8000200000    // first address of the vector stubs
#define CPU_SIZE 0x8000             // a CPU block with its stacks; aligned to its size
#define CPU_LIMIT 8                 // CPU blocks

#define KERNEL_CS 0x08
#define KERNEL_SS 0x10
#define USER_SS 0x1b
#define USER_CS 0x23
#define TSS_SELECTOR 0x28  // of CPU 0; 16 bytes a CPU

#endif
