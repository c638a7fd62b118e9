// SPDX-License-Identifier: GPL-2.0 OR MIT
// What Linux's side calls of the program. Linux's code keeps the stack at multiples of 8 only, Swift's wants 16.
#include "container.h"

#define ALIGNED __attribute__((force_align_arg_pointer))

void container_program_print(const char *text, unsigned long length);
void container_program_wait(unsigned long until);
void container_program_fail(void);
unsigned long container_program_now(void);
void *container_program_stack(void **top);
void container_program_stack_free(void *stack);

ALIGNED static void print(const char *text, unsigned long length) { container_program_print(text, length); }
ALIGNED static void wait(unsigned long until) { container_program_wait(until); }
ALIGNED static void fail(void) { container_program_fail(); }
ALIGNED static unsigned long now(void) { return container_program_now(); }
ALIGNED static void *stack(void **top) { return container_program_stack(top); }
ALIGNED static void stack_free(void *stack) { container_program_stack_free(stack); }

void container_set_callbacks(struct container_host *host) {
  host->print = print;
  host->wait = wait;
  host->fail = fail;
  host->now = now;
  host->stack = stack;
  host->stack_free = stack_free;
}

int container_call_initialiser(unsigned long address) { return ((int (*)(void))address)(); }
