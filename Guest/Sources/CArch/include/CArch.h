// What the assembly files offer to Swift, and the single instructions that Swift has no word for.
#ifndef POLLUX_CARCH_H
#define POLLUX_CARCH_H

#include <stdint.h>
#include "layout.h"

#pragma clang attribute push(__attribute__((visibility("hidden"))), apply_to = any(function, variable(is_global)))

static inline void port_write8(uint16_t port, uint8_t value) {
  __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

#pragma clang attribute pop
#endif
