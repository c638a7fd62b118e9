// Memory that the processor reads before any Swift runs, and blocks that entry code finds by name: data only, no code.
#include "layout.h"

typedef unsigned long long Entry;

enum { P = 0x01, W = 0x02, U = 0x04, AD = 0x60, PS = 0x80, G = 0x100, TABLE = P | W | AD };
#define NX 0x8000000000000000
/// The guest-physical address of something in the image, with an entry's flags.
#define AT(table, flags) ((Entry)(table) - KERNEL_BASE + (flags))
#define PAGE __attribute__((aligned(4096), section(".data.pages"))) Entry
#define BLOCK(size) __attribute__((aligned(size), section(".bss.aligned"))) unsigned char

extern Entry direct_pd[];                                           // boot.S
extern unsigned char entry_page[], gate_page[], info_page[];        // boot.S
extern Entry shared_pdpt[], identity_pdpt[], image_pdpt[], direct_pdpt[];

// With the identity map of the first 2 MiB, for changing mode only.
PAGE boot_pml4[512] = {
  [0] = AT(identity_pdpt, TABLE), [253] = AT(shared_pdpt, TABLE | U), [254] = AT(direct_pdpt, TABLE),
  [255] = AT(image_pdpt, TABLE),
};
// The template of every address space; 252: services in kernel space (Isolation/Walls.swift).
PAGE kernel_pml4[512] = {
  [253] = AT(shared_pdpt, TABLE | U), [254] = AT(direct_pdpt, TABLE), [255] = AT(image_pdpt, TABLE),
};

PAGE identity_pd[512] = { P | W | AD | PS };
PAGE identity_pdpt[512] = { AT(identity_pd, TABLE) };

// Text: read, execute; read-only data; data.
PAGE image_pd[512] = {
  [1] = 0x200000 | P | AD | PS | G, [2] = 0x400000 | P | AD | PS | G | NX, [3] = 0x600000 | P | W | AD | PS | G | NX,
};
PAGE image_pdpt[512] = { AT(image_pd, TABLE) };

// 4 GiB here; the rest is added when RAM lies above.
PAGE direct_pdpt[512] = {
  AT(direct_pd, TABLE), AT(direct_pd, TABLE + 0x1000), AT(direct_pd, TABLE + 0x2000), AT(direct_pd, TABLE + 0x3000),
};

// What programs share with the kernel, read-only: clock page (mapped when it is enabled), information, entry.
PAGE shared_pt[512] = { [510] = AT(info_page, P | U | AD) + NX, [511] = AT(entry_page, P | U | AD) };
PAGE shared_pd[512] = { [511] = AT(shared_pt, TABLE | U) };
PAGE shared_pdpt[512] = { [511] = AT(shared_pd, TABLE | U) };

// The same at the top of kernel space, for services there.
PAGE service_pt[512] = { [510] = AT(info_page, P | AD) + NX, [511] = AT(gate_page, P | AD) };
PAGE service_pd[512] = { [511] = AT(service_pt, TABLE) };

BLOCK(CPU_SIZE) cpu_blocks[CPU_SIZE * CPU_LIMIT];
BLOCK(4096) clock_page[4096];
// Of interrupts in domains, a page a CPU.
BLOCK(4096) domain_stacks[CPU_LIMIT * 4096];
BLOCK(4096) kernel_state[0x4000];
BLOCK(4096) thread_table[8 * THREAD_LIMIT];
BLOCK(4096) process_table[8 * PROCESS_LIMIT];
BLOCK(4096) kernel_log[LOG_SIZE];
