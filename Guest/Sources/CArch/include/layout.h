// The kernel's fixed addresses, shared by assembly and Swift. See linker/kernel.ld and PolluxABI/Layout.swift.
#ifndef POLLUX_LAYOUT_H
#define POLLUX_LAYOUT_H

#define KERNEL_BASE 0x7f8000000000  // PML4 slot 255: kernel image, virtual − physical
#define DIRECT_BASE 0x7f0000000000  // PML4 slot 254: all of RAM and devices, virtual − physical
#define TEXT_BASE 0x7f8000200000    // first address of the vector stubs
#define CPU_SIZE 0x8000             // a CPU block with its stacks; aligned to its size
#define CPU_LIMIT 8                 // CPU blocks

// First words of a CPU block (Kernel/Processor.swift).
#define CPU_SCRATCH 0
#define CPU_CURRENT 8
#define CPU_FLUSH 16
#define CPU_PAGE_TABLE 24
#define CPU_TASK 32
#define CPU_DOMAIN_STACK 40
#define CPU_PANIC_STACK 0x4000     // end of the stack that reports faults of the kernel
// First words of a thread (Kernel/Thread.swift): the trap frame, then its CPU block.
#define FRAME_SIZE 176
#define FRAME_CS 144
#define FRAME_RIP 136
#define FRAME_RAX 112
#define FRAME_VECTOR 120
#define FRAME_ERROR 128
#define FRAME_RSP 160
#define THREAD_CPU FRAME_SIZE
#define THREAD_PROCESS 184
#define THREAD_ACTIVATION 192
#define THREAD_VOID 200
// First words of a process (Kernel/Objects/Process.swift) and of a handle (KernelCore/HandleTable.swift).
#define PROCESS_PAGE_TABLE 0
#define PROCESS_HANDLES 8
#define PROCESS_KEYS 40
#define PROCESS_FROM_USER 48
#define PROCESS_FROM_DOMAIN 56
#define HANDLE_KIND 10
#define HANDLE_LIMIT 256
#define CONNECTION_KIND 9
// First words of connections, activations and services (Kernel/Rpc/RpcObjects.swift).
#define CONNECTION_STACK 0
#define CONNECTION_PROCESS 8
#define CONNECTION_ENTRY 16
#define CONNECTION_BADGE 24
#define CONNECTION_CONTEXT 32
#define CONNECTION_SERVICE 40
#define ACTIVATION_STACK 0
#define ACTIVATION_RIP 8
#define ACTIVATION_RSP 16
#define ACTIVATION_RFLAGS 24
#define ACTIVATION_CALLER 32
#define ACTIVATION_PREVIOUS 40
#define ACTIVATION_THREAD 48
#define ACTIVATION_CONNECTION 56
#define ACTIVATION_ATTENTION 64
#define SERVICE_WAITERS 0
// System calls with bit 7 set go another way than the others (PolluxABI/SystemCall.swift).
#define RPC_CALL 128
#define RPC_RETURN 129
// Task state (Intel SDM vol. 3, 8.7): interrupt stack 4, and PKRS in the place of RSP1, which is not used.
#define TASK_STACK 60
#define TASK_KEYS 12
#define TASK_SIZE 128
#define PKRS 0x6e1

#define SYSTEM_CALL_VECTOR 4
#define RPC_AFTER_VECTOR 0x104      // no interrupt's: a returned call has something left to do
#define TRAMPOLINE 0x10000          // where the application processors' real-mode start is copied
#define FAULT_RETURN_OFFSET 16     // of what follows the call of a passed-on fault, there
#define ENTRY_PROBE_OFFSET 64      // of the probe's code in the entry page
#define THREAD_LIMIT 4096
#define PROCESS_LIMIT 1024
#define LOG_SIZE 0x10000

#define KERNEL_CS 0x08
#define KERNEL_SS 0x10
#define USER_SS 0x1b
#define USER_CS 0x23
#define TSS_SELECTOR 0x28  // of CPU 0; 16 bytes a CPU

#endif
