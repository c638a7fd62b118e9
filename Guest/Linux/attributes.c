// SPDX-License-Identifier: GPL-2.0
/* Attributes of devices, as sysfs would show them: groups that drivers and buses register, by path: BUS/DEVICE/NAME, block/vda/NAME. */
#include "internal.h"
#include <linux/sysfs.h>

struct directory {
  char name[48];
  struct device *device;
  const struct attribute_group *group;
  /* Instead of a group: one attribute by itself. */
  const struct attribute *single;
  struct directory *next;
};
static struct directory *first_directory, **last_directory = &first_directory;

static int add(struct device *device, const char *kind, const struct attribute_group *group, const struct attribute *single)
{
  struct directory *directory = kzalloc(sizeof(*directory), GFP_KERNEL);

  if (!directory)
    return -ENOMEM;
  snprintf(directory->name, sizeof(directory->name), "%s/%s%s%s", kind, dev_name(device), group && group->name ? "/" : "",
           group && group->name ? group->name : "");
  directory->device = device;
  directory->group = group;
  directory->single = single;
  *last_directory = directory;
  last_directory = &directory->next;
  return 0;
}

/* All of the device where both are null. */
static void take_away(struct device *device, const struct attribute_group *group, const struct attribute *single)
{
  struct directory **link = &first_directory, *directory;

  while ((directory = *link)) {
    if (directory->device == device && ((!group && !single) || (directory->group == group && directory->single == single))) {
      *link = directory->next;
      kfree(directory);
    } else {
      link = &directory->next;
    }
  }
  last_directory = link;
}

static const char *kind_of(struct device *device)
{
  return device->bus ? device->bus->name : device->class ? device->class->name : "device";
}

int attributes_add(struct device *device, const char *kind, const struct attribute_group **groups)
{
  int error = 0;

  for (; groups && *groups && !error; groups++)
    error = add(device, kind ? kind : kind_of(device), *groups, NULL);
  return error;
}

void attributes_remove(struct device *device, const struct attribute_group **groups)
{
  for (; groups && *groups; groups++)
    take_away(device, *groups, NULL);
}
void attributes_forget(struct device *device) { take_away(device, NULL, NULL); }

/* MARK: Those that drivers add themselves */
int device_create_file(struct device *device, const struct device_attribute *attribute)
{
  return add(device, kind_of(device), NULL, &attribute->attr);
}
EXPORT_SYMBOL(device_create_file);
void device_remove_file(struct device *device, const struct device_attribute *attribute)
{
  take_away(device, NULL, &attribute->attr);
}
EXPORT_SYMBOL(device_remove_file);
int sysfs_create_group(struct kobject *object, const struct attribute_group *group)
{
  struct device *device = container_of(object, struct device, kobj);

  return add(device, kind_of(device), group, NULL);
}
EXPORT_SYMBOL(sysfs_create_group);
void sysfs_remove_group(struct kobject *object, const struct attribute_group *group)
{
  take_away(container_of(object, struct device, kobj), group, NULL);
}
EXPORT_SYMBOL(sysfs_remove_group);

/* MARK: Reading and writing */
/* The attribute of that number in a directory, and what may be done with it; null: there are no more. */
static const struct attribute *attribute_at(const struct directory *directory, int number, umode_t *mode)
{
  const struct attribute_group *group = directory->group;
  const struct attribute *attribute;

  if (directory->single)
    attribute = number ? NULL : directory->single;
  else
    attribute = group->attrs ? group->attrs[number] : NULL;
  if (attribute)
    *mode = group && group->is_visible ? group->is_visible(&directory->device->kobj, (void *)attribute, number) : attribute->mode;
  return attribute;
}

static bool is_path(const struct directory *directory, const struct attribute *attribute, const char *path)
{
  size_t length = strlen(directory->name);

  return !strncmp(path, directory->name, length) && path[length] == '/' && !strcmp(path + length + 1, attribute->name);
}

static long perform(
  const struct directory *directory, const struct attribute *attribute, umode_t mode, enum container_attribute operation,
  char *text, unsigned long size)
{
  /* Attributes take its size for granted, and a driver may hand it to its device. */
  static char *page;
  struct device_attribute *owner = container_of((struct attribute *)attribute, struct device_attribute, attr);
  long result;

  if (!page)
    page = kmalloc(PAGE_SIZE, GFP_KERNEL);
  if (!page)
    return -ENOMEM;
  if (operation == CONTAINER_ATTRIBUTE_WRITE) {
    if (!(mode & 0222) || !owner->store)
      return -EACCES;
    if (size >= PAGE_SIZE)
      return -EINVAL;
    memcpy(page, text, size);
    page[size] = 0;
    return owner->store(directory->device, owner, page, size);
  }
  if (!(mode & 0444) || !owner->show)
    return -EACCES;
  memset(page, 0, PAGE_SIZE);
  result = owner->show(directory->device, owner, page);
  if (result > 0) {
    result = min_t(long, result, size);
    memcpy(text, page, result);
  }
  return result;
}

long attribute_call(enum container_attribute operation, unsigned long index, const char *path, char *text, unsigned long size)
{
  const struct directory *directory;
  const struct attribute *attribute;

  for (directory = first_directory; directory; directory = directory->next) {
    umode_t mode = 0;
    int number;

    for (number = 0; (attribute = attribute_at(directory, number, &mode)); number++) {
      if (!mode)
        continue;
      if (operation == CONTAINER_ATTRIBUTE_NAME) {
        if (!index--)
          return scnprintf(text, size, "%s/%s", directory->name, attribute->name);
      } else if (is_path(directory, attribute, path)) {
        return perform(directory, attribute, mode, operation, text, size);
      }
    }
  }
  return -ENOENT;
}
