#pragma once

// The boot ROM's page, which the guest sees at 0xfffff000; page-aligned.
extern const unsigned char castor_boot_rom[4096];

// Swift would import the array as a tuple.
static inline const void *castor_boot_rom_bytes(void) { return castor_boot_rom; }
