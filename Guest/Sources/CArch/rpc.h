// The lock-free part of a call by thread migration (HongMeng §4.1), for entry.S, where programs come from, and domain.S. A call replaces
// the thread's protection domain, stack and instruction pointer; a return undoes it. Message words stay in their registers,
// nothing is saved but where the caller goes on, and no lock is taken: the stack bound to the connection is taken by one exchange.
// What happens seldom is left to Kernel/Rpc. Who changes what these lines read without a lock (handle slots, dead services) first
// has all other CPUs out of here (Scheduler.stopOthers).
//
// RSP = thread, GS = the CPU block. The way into the other domain is an address in its process: it ends with RAX = process,
// RBP = the final RAX.

// rip, flags, sp: of the caller; entry, stack, server_flags: registers for those of the server.
.macro rpc_call_body slow, way, slot, rip, flags, sp, entry, stack, server_flags
    testq %r15, %r15                    // grants: slow
    jnz \slow
    cmpq $HANDLE_LIMIT, %rdi            // the handle is in the table,
    jae \slow
    movq THREAD_PROCESS(%rsp), %rax
    movq PROCESS_HANDLES(%rax), %\slot
    leaq (%\slot, %rdi, 8), %\slot
    cmpb $CONNECTION_KIND, HANDLE_KIND(%\slot, %rdi, 8)  // in use, and a connection,
    jne \slow
    movq (%\slot, %rdi, 8), %\slot
    testq %\slot, %\slot               // (a slot that is being filled or emptied may show half)
    jz \slow
    xchgq %r15, CONNECTION_STACK(%\slot)   // with a server's stack bound to it, which is now ours
    testq %r15, %r15
    jz \slow
    movq %\rip, ACTIVATION_RIP(%r15)
    movq \flags, ACTIVATION_RFLAGS(%r15)
    movq %\sp, ACTIVATION_RSP(%r15)
    movq %rax, ACTIVATION_CALLER(%r15)
    movq %rsp, ACTIVATION_THREAD(%r15)
    movq THREAD_ACTIVATION(%rsp), %rax
    movq %rax, ACTIVATION_PREVIOUS(%r15)
    movq %r15, THREAD_ACTIVATION(%rsp)
    movq CONNECTION_PROCESS(%\slot), %rax
    movq %rax, THREAD_PROCESS(%rsp)
    movq CONNECTION_BADGE(%\slot), %rdi
    movq CONNECTION_ENTRY(%\slot), %\entry
    movq CONNECTION_CONTEXT(%\slot), %rbp
    movq ACTIVATION_STACK(%r15), %\stack
    movl $0x202, %\server_flags         // the caller's direction and trap flags are not for the server
    jmpq *\way(%rax)
.endm

// rip, flags, sp: registers for those of the caller. `after`: as above, but RBP = service, RDI = a stack that lost its place, bit 0:
// somebody waits for one.
.macro rpc_return_body slow, after, way, rip, flags, sp
    testq %r15, %r15                    // grants: slow
    jnz \slow
    movq THREAD_ACTIVATION(%rsp), %rdi
    testq %rdi, %rdi                    // there is a call to return from,
    jz \slow
    cmpq $0, ACTIVATION_ATTENTION(%rdi) // and nothing happened to it meanwhile
    jne \slow
    movq ACTIVATION_PREVIOUS(%rdi), %rax
    movq %rax, THREAD_ACTIVATION(%rsp)
    movq ACTIVATION_CALLER(%rdi), %rax
    movq %rax, THREAD_PROCESS(%rsp)
    movq ACTIVATION_RIP(%rdi), %\rip
    movq ACTIVATION_RFLAGS(%rdi), %\flags
    movq ACTIVATION_RSP(%rdi), %\sp
    movq ACTIVATION_CONNECTION(%rdi), %rbp
    movq $0, ACTIVATION_THREAD(%rdi)
    xchgq %rdi, CONNECTION_STACK(%rbp)  // bound again; from here on it is not ours
    movq CONNECTION_SERVICE(%rbp), %rbp
    orq SERVICE_WAITERS(%rbp), %rdi     // it took another stack's place, or somebody waits for one
    jnz \after
    xorl %ebp, %ebp
    jmpq *\way(%rax)
.endm
