// SPDX-License-Identifier: GPL-2.0
/* Spinlocks, interrupts, the device model with its platform bus, and random number generators. */
#define INCLUDE_VERMAGIC
#include "internal.h"
#include <linux/hw_random.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/platform_device.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_anchor.h>
#include <linux/virtio_config.h>
#include <linux/vermagic.h>
#include <xen/xen.h>

const struct container_host *container_host;

unsigned int nr_cpu_ids = 1;
EXPORT_SYMBOL(nr_cpu_ids);
enum xen_domain_type xen_domain_type = XEN_NATIVE;
EXPORT_SYMBOL(xen_domain_type);

/* MARK: Locks. Nothing else runs while one is held, so a lock that is taken already would be waited for for ever. */
static void take(raw_spinlock_t *lock)
{
  if (atomic_read(&lock->raw_lock.val))
    panic("a spinlock is taken twice: %p", lock);
  atomic_set(&lock->raw_lock.val, 1);
}

static void release(raw_spinlock_t *lock) { atomic_set(&lock->raw_lock.val, 0); }

void _raw_spin_lock(raw_spinlock_t *lock) { take(lock); }
EXPORT_SYMBOL(_raw_spin_lock);
void _raw_spin_lock_irq(raw_spinlock_t *lock) { take(lock); }
EXPORT_SYMBOL(_raw_spin_lock_irq);
unsigned long _raw_spin_lock_irqsave(raw_spinlock_t *lock)
{
  take(lock);
  return 0;
}
EXPORT_SYMBOL(_raw_spin_lock_irqsave);
void _raw_spin_unlock(raw_spinlock_t *lock) { release(lock); }
EXPORT_SYMBOL(_raw_spin_unlock);
void _raw_spin_unlock_irq(raw_spinlock_t *lock) { release(lock); }
EXPORT_SYMBOL(_raw_spin_unlock_irq);
void _raw_spin_unlock_irqrestore(raw_spinlock_t *lock, unsigned long flags) { release(lock); }
EXPORT_SYMBOL(_raw_spin_unlock_irqrestore);

void synchronize_rcu(void) {}
EXPORT_SYMBOL(synchronize_rcu);

/* MARK: Interrupts */
struct handler {
  unsigned int number;
  irq_handler_t function;
  const char *name;
  void *argument;
  struct handler *next;
};
static struct handler *handlers;

int request_threaded_irq(
  unsigned int number, irq_handler_t function, irq_handler_t thread, unsigned long flags, const char *name,
  void *argument)
{
  struct handler *handler = kzalloc(sizeof(*handler), GFP_KERNEL);

  if (!handler)
    return -ENOMEM;
  if (!function || thread) {
    kfree(handler);
    return -EOPNOTSUPP;
  }
  handler->number = number;
  handler->function = function;
  handler->name = name;
  handler->argument = argument;
  handler->next = handlers;
  handlers = handler;
  return 0;
}
EXPORT_SYMBOL(request_threaded_irq);

const void *free_irq(unsigned int number, void *argument)
{
  struct handler **link, *handler;
  const char *name;

  for (link = &handlers; (handler = *link); link = &handler->next) {
    if (handler->number != number || handler->argument != argument)
      continue;
    *link = handler->next;
    name = handler->name;
    kfree(handler);
    return name;
  }
  return NULL;
}
EXPORT_SYMBOL(free_irq);

void synchronize_irq(unsigned int number) {}
EXPORT_SYMBOL(synchronize_irq);

int irq_set_irq_wake(unsigned int number, unsigned int on) { return 0; }
EXPORT_SYMBOL(irq_set_irq_wake);

void interrupts_run(int number)
{
  struct handler *handler, *next;

  for (handler = handlers; handler; handler = next) {
    next = handler->next;
    if (handler->number == number)
      handler->function(number, handler->argument);
  }
}

unsigned int ioread32(const void __iomem *address) { return readl(address); }
EXPORT_SYMBOL(ioread32);

/* MARK: The device model: buses, drivers and devices, each in a list. */
enum kind { A_BUS, A_DRIVER, A_DEVICE };
struct node {
  enum kind kind;
  void *object;
  struct list_head entry;
};
static LIST_HEAD(nodes);

static int node_add(enum kind kind, void *object)
{
  struct node *node = kzalloc(sizeof(*node), GFP_KERNEL);

  if (!node)
    return -ENOMEM;
  node->kind = kind;
  node->object = object;
  list_add_tail(&node->entry, &nodes);
  return 0;
}

static void node_remove(void *object)
{
  struct node *node, *next;

  list_for_each_entry_safe (node, next, &nodes, entry) {
    if (node->object != object)
      continue;
    list_del(&node->entry);
    kfree(node);
    return;
  }
}

static int attach(struct device *device, struct device_driver *driver)
{
  struct bus_type *bus = device->bus;
  int error;

  if (!bus || driver->bus != bus || device->driver || (bus->match && !bus->match(device, driver)))
    return 0;
  device->driver = driver;
  error = bus->probe ? bus->probe(device) : driver->probe ? driver->probe(device) : 0;
  if (!error) {
    attributes_add(device, NULL, driver->dev_groups);
    return 1;
  }
  managed_release(device);
  device->driver = NULL;
  if (error != -ENODEV && error != -ENXIO)
    _printk("%s: probe of %s failed with error %d\n", driver->name, dev_name(device), error);
  return error;
}

static void detach(struct device *device)
{
  struct device_driver *driver = device->driver;

  if (!driver)
    return;
  attributes_remove(device, driver->dev_groups);
  if (device->bus->remove)
    device->bus->remove(device);
  else if (driver->remove)
    driver->remove(device);
  managed_release(device);
  device->driver = NULL;
}

int bus_register(struct bus_type *bus) { return node_add(A_BUS, bus); }
EXPORT_SYMBOL(bus_register);
void bus_unregister(struct bus_type *bus) { node_remove(bus); }
EXPORT_SYMBOL(bus_unregister);

int driver_register(struct device_driver *driver)
{
  struct node *node;
  int error = node_add(A_DRIVER, driver);

  /* A probe may add devices; they come at the end of the list. */
  list_for_each_entry (node, &nodes, entry)
    if (!error && node->kind == A_DEVICE)
      attach(node->object, driver);
  return error;
}
EXPORT_SYMBOL(driver_register);

void driver_unregister(struct device_driver *driver)
{
  struct node *node;

  list_for_each_entry (node, &nodes, entry)
    if (node->kind == A_DEVICE && ((struct device *)node->object)->driver == driver)
      detach(node->object);
  node_remove(driver);
}
EXPORT_SYMBOL(driver_unregister);

void device_initialize(struct device *device)
{
  kref_init(&device->kobj.kref);
  INIT_LIST_HEAD(&device->kobj.entry);
  INIT_LIST_HEAD(&device->dma_pools);
  INIT_LIST_HEAD(&device->devres_head);
}
EXPORT_SYMBOL(device_initialize);

int dev_set_name(struct device *device, const char *format, ...)
{
  va_list arguments;
  char name[64];

  va_start(arguments, format);
  print_text(name, sizeof(name), format, arguments);
  va_end(arguments);
  kfree(device->kobj.name);
  device->kobj.name = kmalloc(strlen(name) + 1, GFP_KERNEL);
  if (!device->kobj.name)
    return -ENOMEM;
  memcpy((void *)device->kobj.name, name, strlen(name) + 1);
  return 0;
}
EXPORT_SYMBOL(dev_set_name);

int device_add(struct device *device)
{
  struct node *node;
  int error = node_add(A_DEVICE, device);

  if (error)
    return error;
  if (device->bus)
    attributes_add(device, NULL, device->bus->dev_groups);
  attributes_add(device, NULL, device->groups);
  list_for_each_entry (node, &nodes, entry)
    if (node->kind == A_DRIVER && attach(device, node->object))
      break;
  return 0;
}
EXPORT_SYMBOL(device_add);

static void device_release(struct kref *reference)
{
  struct device *device = container_of(reference, struct device, kobj.kref);

  kfree(device->kobj.name);
  device->kobj.name = NULL;
  if (device->release)
    device->release(device);
}

struct device *get_device(struct device *device)
{
  if (device)
    kref_get(&device->kobj.kref);
  return device;
}
EXPORT_SYMBOL(get_device);

void put_device(struct device *device)
{
  if (device)
    kref_put(&device->kobj.kref, device_release);
}
EXPORT_SYMBOL(put_device);

void device_del(struct device *device)
{
  detach(device);
  attributes_forget(device);
  node_remove(device);
}
EXPORT_SYMBOL(device_del);

void device_unregister(struct device *device)
{
  device_del(device);
  put_device(device);
}
EXPORT_SYMBOL(device_unregister);

const char *dev_driver_string(const struct device *device)
{
  return device->driver ? device->driver->name : device->bus ? device->bus->name : "";
}
EXPORT_SYMBOL(dev_driver_string);

/* Nobody listens to uevents here: init hears of devices by announcements. */
int add_uevent_var(struct kobj_uevent_env *environment, const char *format, ...) { return 0; }
EXPORT_SYMBOL(add_uevent_var);

/* MARK: The platform bus */
static int platform_match(struct device *device, struct device_driver *driver)
{
  const char *left = to_platform_device(device)->name, *right = driver->name;

  for (; *left && *left == *right; left++, right++)
    ;
  return *left == *right;
}

static int platform_probe(struct device *device)
{
  return to_platform_driver(device->driver)->probe(to_platform_device(device));
}

static void platform_remove(struct device *device)
{
  to_platform_driver(device->driver)->remove(to_platform_device(device));
}

static struct bus_type platform_devices_bus = {
  .name = "platform", .match = platform_match, .probe = platform_probe, .remove = platform_remove};

int __platform_driver_register(struct platform_driver *driver, struct module *owner)
{
  driver->driver.owner = owner;
  driver->driver.bus = &platform_devices_bus;
  return driver_register(&driver->driver);
}
EXPORT_SYMBOL(__platform_driver_register);

void platform_driver_unregister(struct platform_driver *driver) { driver_unregister(&driver->driver); }
EXPORT_SYMBOL(platform_driver_unregister);

struct platform_entry {
  struct platform_device device;
  struct resource resources[2];
  void *registers;
  u64 dma_mask;
};

int platform_add(const struct container_device *description)
{
  static int count;
  struct platform_entry *entry = kzalloc(sizeof(*entry), GFP_KERNEL);

  if (!entry)
    return -ENOMEM;
  entry->device.name = description->name;
  entry->device.id = count++;
  entry->device.num_resources = 2;
  entry->device.resource = entry->resources;
  entry->resources[0].start = description->registers_physical;
  entry->resources[0].end = description->registers_physical + description->registers_size - 1;
  entry->resources[0].flags = IORESOURCE_MEM;
  entry->resources[1].start = entry->resources[1].end = description->interrupt;
  entry->resources[1].flags = IORESOURCE_IRQ;
  entry->registers = description->registers;
  entry->device.dev.bus = &platform_devices_bus;
  entry->device.dev.dma_mask = &entry->dma_mask;
  device_initialize(&entry->device.dev);
  dev_set_name(&entry->device.dev, "%s.%d", description->name, entry->device.id);
  return device_add(&entry->device.dev);
}

void __iomem *devm_platform_ioremap_resource(struct platform_device *device, unsigned int index)
{
  if (index)
    return IOMEM_ERR_PTR(-EINVAL);
  return (void __iomem *)container_of(device, struct platform_entry, device)->registers;
}
EXPORT_SYMBOL(devm_platform_ioremap_resource);

int platform_get_irq(struct platform_device *device, unsigned int index)
{
  return index ? -ENXIO : device->resource[1].start;
}
EXPORT_SYMBOL(platform_get_irq);

/* drivers/virtio/virtio_anchor.c: whether a device may only reach shared memory; here it may reach all. */
static bool reaches_everything(struct virtio_device *device) { return false; }
bool (*virtio_check_mem_acc_cb)(struct virtio_device *) = reaches_everything;
EXPORT_SYMBOL(virtio_check_mem_acc_cb);

/* MARK: Random number generators */
static struct hwrng *generator;

int hwrng_register(struct hwrng *candidate)
{
  if (!generator)
    generator = candidate;
  return 0;
}
EXPORT_SYMBOL(hwrng_register);

void hwrng_unregister(struct hwrng *candidate)
{
  if (generator == candidate)
    generator = NULL;
}
EXPORT_SYMBOL(hwrng_unregister);

unsigned long patience_end;

/* How long a device may take for random bytes. */
#define RANDOM_PATIENCE (2 * NSEC_PER_SEC)

long random_read(void *data, unsigned long size)
{
  /* A driver may hand the buffer to its device, so it has to be memory of the direct map. */
  static u8 *buffer;
  /* Bytes of the buffer that nobody has had, up to its end. */
  static unsigned long rest, end;
  unsigned long count;

  if (!generator)
    return -ENODEV;
  if (!buffer)
    buffer = kmalloc(SMP_CACHE_BYTES, GFP_KERNEL);
  if (!buffer)
    return -ENOMEM;
  if (!rest) {
    /* As Linux's own core, ask for whole buffers only: after a read of less, virtio_rng of 6.1.192 waits for a request that it has not
       made (`avail - data_idx` in its copy_data counts what was read before twice). */
    long read;

    patience_end = container_host->now() + RANDOM_PATIENCE;
    read = generator->read(generator, buffer, SMP_CACHE_BYTES, true);
    patience_end = 0;
    if (read <= 0)
      return read;
    rest = end = read;
  }
  count = min(size, rest);
  memcpy(data, buffer + end - rest, count);
  /* No one reads them a second time. */
  memset(buffer + end - rest, 0, count);
  rest -= count;
  return count;
}

/* MARK: The virtio device of the disk, the interface or the generator */
static struct container_virtio virtio;

static void virtio_connect(const struct container_virtio *functions) { virtio = *functions; }

/* The device that a driver of virtio's bus has: the one on another bus than the platform's. */
static struct device *driven_device(void)
{
  struct node *node;

  list_for_each_entry (node, &nodes, entry) {
    struct device *device = node->object;

    if (node->kind == A_DEVICE && device->bus && device->bus != &platform_devices_bus && device->driver)
      return device;
  }
  return NULL;
}

static struct virtio_device *virtio_owner(void)
{
  struct device *device = disk_device();

  if (!device)
    device = net_virtio_device();
  if (!device)
    device = driven_device();
  return device ? dev_to_virtio(device) : NULL;
}

/* Whether the device asks for a reset, and so brings nothing more. */
bool device_is_stuck(void)
{
  struct virtio_device *owner = virtio_owner();

  return owner && owner->config->get_status(owner) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static int virtio_queue(int index, struct container_queue *description)
{
  struct virtio_device *owner = virtio_owner();
  struct virtqueue *queue;

  if (!owner)
    return 0;
  list_for_each_entry (queue, &owner->vqs, list)
    if (queue->index == index)
      break;
  if (list_entry_is_head(queue, &owner->vqs, list))
    return 0;
  description->descriptors = ((dma_addr_t (*)(struct virtqueue *))virtio.virtqueue_get_desc_addr)(queue);
  description->available = ((dma_addr_t (*)(struct virtqueue *))virtio.virtqueue_get_avail_addr)(queue);
  description->used = ((dma_addr_t (*)(struct virtqueue *))virtio.virtqueue_get_used_addr)(queue);
  description->size = ((unsigned int (*)(struct virtqueue *))virtio.virtqueue_get_vring_size)(queue);
  description->features = owner->features;
  description->submitted = READ_ONCE(*(u16 *)(phys_to_virt(description->available) + 2));
  if (disk_device())
    disk_limits(description);
  return 1;
}

static void virtio_configuration_changed(void)
{
  struct virtio_device *owner = virtio_owner();

  if (owner)
    ((void (*)(struct virtio_device *))virtio.virtio_config_changed)(owner);
}

static int virtio_suspend(void)
{
  struct virtio_device *owner = virtio_owner();

  if (!owner)
    return -ENODEV;
  /* The device is stopped before the driver waits for its requests: they do not come back. */
  owner->config->reset(owner);
  disk_forget();
  net_forget();
  return ((int (*)(struct virtio_device *))virtio.virtio_device_freeze)(owner);
}

static int virtio_resume(void)
{
  struct virtio_device *owner = virtio_owner();
  int error;

  if (!owner)
    return -ENODEV;
  error = ((int (*)(struct virtio_device *))virtio.virtio_device_restore)(owner);
  if (!error)
    net_restored();
  return error;
}

/* MARK: The program's entries */
static void start(const struct container_host *host)
{
  container_host = host;
  memory_start();
}

const struct container_entries container_entries = {
  .size = sizeof(struct container_entries),
  .vermagic = VERMAGIC_STRING,
  .start = start,
  .add_device = platform_add,
  .interrupt = interrupts_run,
  .run_work = work_run,
  .disk = disk_describe,
  .submit = disk_submit,
  .commit = disk_commit,
  .completion = disk_completion,
  .connect = virtio_connect,
  .queue = virtio_queue,
  .configuration_changed = virtio_configuration_changed,
  .suspend = virtio_suspend,
  .resume = virtio_resume,
  .interface = net_describe,
  .interface_open = net_open,
  .interface_address = net_set_address,
  .interface_follow = net_follow_address,
  .transmit = net_transmit,
  .sent = net_sent,
  .receive = net_receive,
  .has_arrived = net_has_arrived,
  .next_work = work_next,
  .random = random_read,
  .parameter = parameter_set,
  .module_loaded = module_loaded,
  .exception = exception,
  .attribute = attribute_call,
  .hand_over = disk_hand_over,
};
EXPORT_SYMBOL(container_entries);
