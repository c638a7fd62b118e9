/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The line between the container's program (Swift) and Linux's side of it (the C of this folder, built against Linux's headers). Plain
 * C types, so that both sides read the same file.
 */
#ifndef LINUX_CONTAINER_H
#define LINUX_CONTAINER_H

/* Memory and services of the program, told once. Addresses are the process's unless they say physical. */
struct container_host {
  /* Contiguous memory for everything that a driver may hand to a device. */
  void *memory;
  unsigned long memory_size;
  unsigned long memory_physical;
  /* Zeroed room for Linux's `struct page` of that memory: 64 bytes for each page of 4096. */
  void *page_structs;
  /* Text for the console and the kernel's log. */
  void (*print)(const char *text, unsigned long length);
  /* Sleeps until an interrupt of a device or a time-out of a second, and has interrupts handled. */
  void (*wait)(void);
  /* Ends the process. */
  void (*fail)(void);
};

/* A device on the platform bus. */
struct container_device {
  const char *name;
  void *registers;
  unsigned long registers_physical, registers_size;
  int interrupt;
};

struct container_disk {
  unsigned long sectors;
  unsigned int block_size, maximum_transfer;
  int read_only, can_flush, can_discard, can_write_zeroes;
  char name[32];
};

enum container_operation {
  CONTAINER_READ,
  CONTAINER_WRITE,
  CONTAINER_FLUSH,
  CONTAINER_DISCARD,
  CONTAINER_WRITE_ZEROES
};
enum container_submission { CONTAINER_ACCEPTED, CONTAINER_FULL, CONTAINER_REFUSED };
enum container_status { CONTAINER_SUCCESS, CONTAINER_ERROR, CONTAINER_UNSUPPORTED };

/* Linux's side, as the program calls it; from one thread. */
struct container_entries {
  /* The kernel that the C was built for, as modules name it in `vermagic`. */
  const char *vermagic;
  void (*start)(const struct container_host *host);
  /* Linux's error numbers, negative; 0: a driver took the device or will when it comes. */
  int (*add_device)(const struct container_device *device);
  void (*interrupt)(int number);
  /* Runs work that was put off; whether there was any. */
  int (*run_work)(void);
  /* The first disk; 0: there is none. */
  int (*disk)(struct container_disk *disk);
  /* `physical` is the address of `length` contiguous bytes, multiples of 512. `token` comes back with the completion. */
  enum container_submission (*submit)(
    unsigned long token, enum container_operation operation, unsigned long sector, unsigned long physical,
    unsigned int length);
  /* Lets the device see what was submitted. */
  void (*commit)(void);
  int (*completion)(unsigned long *token, enum container_status *status);
  /* Reads random bytes from the first generator that a driver registered; their number, or a negative error number. */
  long (*random)(void *data, unsigned long size);
};

/* Of the program, not of Linux's side: its callbacks, put into `host`; and a call of a module's `init_module`. */
void container_set_callbacks(struct container_host *host);
int container_call_initialiser(unsigned long address);

#endif
