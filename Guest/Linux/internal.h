/* SPDX-License-Identifier: GPL-2.0 */
/* What the files of this folder share. One processor, on which code runs until it sleeps: spinlocks need no waiting. */
#ifndef LINUX_CONTAINER_INTERNAL_H
#define LINUX_CONTAINER_INTERNAL_H

#include <linux/module.h>
#include <linux/slab.h>
#include <linux/device.h>
#include <linux/workqueue.h>

#include "container.h"

extern const struct container_host *container_host;

void memory_start(void);
long stub_called(const char *name, int *said);
int print_text(char *buffer, unsigned long size, const char *format, va_list arguments);
int platform_add(const struct container_device *device);
void interrupts_run(int number);
int tasks_run(void);
int tasks_are_ready(void);
int timers_run(void);
unsigned long timers_next(void);
void time_update(void);
int work_run(void);
int work_start(void);
unsigned long work_next(void);
int tasklets_run(void);
/* Until when a wait that can be given up goes on, by the clock of `now`; 0: for ever. */
extern unsigned long patience_end;
/* Whether the device asks for a reset, and so brings nothing more. */
bool device_is_stuck(void);
/* Shows what `groups` has of the device; `kind`: instead of its bus. */
int attributes_add(struct device *device, const char *kind, const struct attribute_group **groups);
void attributes_remove(struct device *device, const struct attribute_group **groups);
void attributes_forget(struct device *device);
long attribute_call(enum container_attribute operation, unsigned long index, const char *path, char *text, unsigned long size);
/* A driver has let go of the device. */
void managed_release(struct device *device);
int module_loaded(const struct container_module *module);
unsigned long exception(int vector, unsigned long address, unsigned long error, unsigned long instruction);
int parameter_set(unsigned long section, unsigned long size, const char *name, const char *value);
int disk_describe(struct container_disk *disk);
enum container_submission disk_submit(
  unsigned long token, enum container_operation operation, unsigned long sector, unsigned long physical,
  unsigned int length);
void disk_commit(void);
int disk_completion(unsigned long *token, enum container_status *status);
struct device *disk_device(void);
void disk_hand_over(int handed_over);
void disk_forget(void);
void disk_limits(struct container_queue *queue);
int net_run(void);
struct device *net_virtio_device(void);
int net_describe(struct container_interface *description);
int net_open(int up);
int net_set_address(unsigned long address);
enum container_submission net_transmit(unsigned long token, const void *header, unsigned long physical, unsigned int length, int more);
int net_sent(unsigned long *token);
int net_receive(void *data, unsigned int size);
int net_has_arrived(void);
void net_forget(void);
void net_follow_address(void);
void net_restored(void);
long random_read(void *data, unsigned long size);

#endif
