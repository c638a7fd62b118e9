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
  /* Sleeps until an interrupt of a device or a time by the clock of `now`, at most a second, and has interrupts handled. */
  void (*wait)(unsigned long until);
  /* Ends the process. */
  void (*fail)(void);
  /* Nanoseconds since some time. */
  unsigned long (*now)(void);
  /* A stack for a kthread, below which nothing is mapped; `top` is its end. Null: there is no memory. */
  void *(*stack)(void **top);
  /* A stack that nobody uses any more. */
  void (*stack_free)(void *stack);
};

/* A module in memory, with the sections that say what its exceptions mean; addresses, and sizes in bytes. */
struct container_module {
  unsigned long base, size;
  unsigned long bugs, bugs_size;
  unsigned long exceptions, exceptions_size;
  char name[56];
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

struct container_interface {
  /* The MAC address as a number: its first byte is bits 40 to 47. */
  unsigned long address;
  unsigned int mtu;
  int is_up;
  /* Packets that came and found no room. */
  unsigned long dropped;
  char name[16];
};

/* Functions of Linux's virtio modules, which Linux's side cannot name because they are loaded after it. */
struct container_virtio {
  unsigned long virtqueue_get_desc_addr, virtqueue_get_avail_addr, virtqueue_get_used_addr;
  unsigned long virtqueue_get_vring_size;
  unsigned long virtio_config_changed, virtio_device_freeze, virtio_device_restore;
};

/* The disk's request queue as its driver set it up: guest-physical addresses, and what was negotiated. */
struct container_queue {
  unsigned long descriptors, available, used, features;
  unsigned int size, segment_size, segments;
  /* How many requests the driver has put into it. */
  unsigned int submitted;
};

enum container_operation {
  CONTAINER_READ,
  CONTAINER_WRITE,
  CONTAINER_FLUSH,
  CONTAINER_DISCARD,
  CONTAINER_WRITE_ZEROES
};
enum container_attribute { CONTAINER_ATTRIBUTE_NAME, CONTAINER_ATTRIBUTE_READ, CONTAINER_ATTRIBUTE_WRITE };
enum container_submission { CONTAINER_ACCEPTED, CONTAINER_FULL, CONTAINER_REFUSED };
enum container_status { CONTAINER_SUCCESS, CONTAINER_ERROR, CONTAINER_UNSUPPORTED };

/* Linux's side, as the program calls it; from one thread. */
struct container_entries {
  /* The size of this structure: program and Linux's side are built apart, and have to be of one state of this file. */
  unsigned long size;
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
  /* Told once, when the modules are loaded. */
  void (*connect)(const struct container_virtio *functions);
  /* The device's queue of that number; 0: there is no device, or its driver has no such queue. */
  int (*queue)(int index, struct container_queue *queue);
  /* The driver hears of a new configuration, where the interrupt's reason has been acknowledged already. */
  void (*configuration_changed)(void);
  /* As for a system that goes to sleep: the driver resets its device and gives its queues back, or sets both up again. What it had in flight
     is forgotten; the program submits it again. Error numbers. */
  int (*suspend)(void);
  int (*resume)(void);
  /* The first network interface; 0: there is none. */
  int (*interface)(struct container_interface *interface);
  /* Has its driver start receiving, or stop. An error number. */
  int (*interface_open)(int up);
  int (*interface_address)(unsigned long address);
  /* Looks whether the device's configuration has another address, and has the driver take it. */
  void (*interface_follow)(void);
  /* Sends `length` contiguous bytes at the physical address, a frame; `header` is its `virtio_net_hdr`. `more` will follow at once. */
  enum container_submission (*transmit)(
    unsigned long token, const void *header, unsigned long physical, unsigned int length, int more);
  /* A packet that the device has let go of; 0: none. */
  int (*sent)(unsigned long *token);
  /* Copies the next packet with a virtio header of 12 bytes before it; bytes copied, 0: none has arrived. */
  int (*receive)(void *data, unsigned int size);
  int (*has_arrived)(void);
  /* When work that was put off for a time is due, by the clock of `now`; the largest number: there is none. */
  unsigned long (*next_work)(void);
  /* Reads random bytes from the first generator that a driver registered; their number, or a negative error number. */
  long (*random)(void *data, unsigned long size);
  /* Sets a module's parameter, before its initialisation: `section` is where its `__param` lies. An error number. */
  int (*parameter)(unsigned long section, unsigned long size, const char *name, const char *value);
  /* A module is in memory, and will be initialised next. An error number. */
  int (*module_loaded)(const struct container_module *module);
  /* Code that was told of has got an exception; `address` and `error` are a page fault's (14). Where it goes on; 0: it does not. */
  unsigned long (*exception)(int vector, unsigned long address, unsigned long error, unsigned long instruction);
  /* Whether a disk's queue is a twin's, so that its driver must not put requests of its own into it. */
  void (*hand_over)(int handed_over);
  /* Attributes as sysfs would show them: the path of the one of number `index`, or the value of that at `path`, into `text`, or a new value
     from there; the length, or a negative error number. */
  long (*attribute)(enum container_attribute operation, unsigned long index, const char *path, char *text, unsigned long size);
};

/* Of the program, not of Linux's side: its callbacks, put into `host`; and a call of a module's `init_module`. */
void container_set_callbacks(struct container_host *host);
int container_call_initialiser(unsigned long address);

#endif
