// SPDX-License-Identifier: GPL-2.0
/* What goes with a device when its driver lets go of it, users of modules, notifications, and messages that would be too many. */
#include "internal.h"
#include <linux/dynamic_debug.h>
#include <linux/jiffies.h>
#include <linux/notifier.h>
#include <linux/ratelimit.h>

/* MARK: What is a device's: memory, or something to be called; the last first. */
struct managed {
  struct device *device;
  void (*action)(void *);
  void *data;
  struct managed *next;
};
static struct managed *all_managed;

int devm_add_action(struct device *device, void (*action)(void *), void *data)
{
  struct managed *managed = kmalloc(sizeof(*managed), GFP_KERNEL);

  if (!managed)
    return -ENOMEM;
  *managed = (struct managed){device, action, data, all_managed};
  all_managed = managed;
  return 0;
}
EXPORT_SYMBOL(devm_add_action);

/* Forgets it; whether there was such a thing. */
static bool forget(struct device *device, void (*action)(void *), const void *data)
{
  struct managed **link, *managed;

  for (link = &all_managed; (managed = *link); link = &managed->next)
    if (managed->device == device && managed->action == action && managed->data == data) {
      *link = managed->next;
      kfree(managed);
      return true;
    }
  return false;
}

void devm_remove_action(struct device *device, void (*action)(void *), void *data) { forget(device, action, data); }
EXPORT_SYMBOL(devm_remove_action);
void devm_release_action(struct device *device, void (*action)(void *), void *data)
{
  if (forget(device, action, data))
    action(data);
}
EXPORT_SYMBOL(devm_release_action);

void managed_release(struct device *device)
{
  struct managed **link = &all_managed, *managed;

  while ((managed = *link)) {
    if (managed->device != device) {
      link = &managed->next;
      continue;
    }
    *link = managed->next;
    managed->action(managed->data);
    kfree(managed);
    /* It may have changed the list. */
    link = &all_managed;
  }
}

static void free_managed(void *data) { kfree(data); }

void *devm_kmalloc(struct device *device, size_t size, gfp_t flags)
{
  void *block = kmalloc(size, flags);

  if (block && devm_add_action(device, free_managed, block)) {
    kfree(block);
    return NULL;
  }
  return block;
}
EXPORT_SYMBOL(devm_kmalloc);
void devm_kfree(struct device *device, const void *block)
{
  if (forget(device, free_managed, block))
    kfree(block);
}
EXPORT_SYMBOL(devm_kfree);
void *devm_kmemdup(struct device *device, const void *source, size_t size, gfp_t flags)
{
  void *copy = devm_kmalloc(device, size, flags);

  return copy ? memcpy(copy, source, size) : NULL;
}
EXPORT_SYMBOL(devm_kmemdup);
char *devm_kstrdup(struct device *device, const char *text, gfp_t flags)
{
  return text ? devm_kmemdup(device, text, strlen(text) + 1, flags) : NULL;
}
EXPORT_SYMBOL(devm_kstrdup);
char *devm_kasprintf(struct device *device, gfp_t flags, const char *format, ...)
{
  va_list arguments;
  char *text;

  va_start(arguments, format);
  text = kvasprintf(flags, format, arguments);
  va_end(arguments);
  if (text && devm_add_action(device, free_managed, text)) {
    kfree(text);
    return NULL;
  }
  return text;
}
EXPORT_SYMBOL(devm_kasprintf);

/* MARK: Users of modules, which are never taken out here */
bool try_module_get(struct module *module) { return true; }
EXPORT_SYMBOL(try_module_get);
void __module_get(struct module *module) {}
EXPORT_SYMBOL(__module_get);
void module_put(struct module *module) {}
EXPORT_SYMBOL(module_put);

/* MARK: Too many messages */
int ___ratelimit(struct ratelimit_state *state, const char *function)
{
  if (!state->interval)
    return 1;
  if (!state->begin || time_is_before_jiffies(state->begin + state->interval)) {
    if (state->missed)
      _printk("%s: %d callbacks suppressed\n", function, state->missed);
    state->begin = jiffies;
    state->printed = state->missed = 0;
  }
  if (state->printed < state->burst) {
    state->printed++;
    return 1;
  }
  state->missed++;
  return 0;
}
EXPORT_SYMBOL(___ratelimit);

void __dynamic_dev_dbg(struct _ddebug *descriptor, const struct device *device, const char *format, ...) {}
EXPORT_SYMBOL(__dynamic_dev_dbg);

/* MARK: Notifications. All kinds of chains begin with their first block; they differ in locks. */
static int chain_add(struct notifier_block **first, struct notifier_block *block)
{
  for (; *first; first = (struct notifier_block **)&(*first)->next) {
    if (*first == block)
      return -EEXIST;
    if (block->priority > (*first)->priority)
      break;
  }
  block->next = *first;
  *first = block;
  return 0;
}
static int chain_remove(struct notifier_block **first, struct notifier_block *block)
{
  for (; *first; first = (struct notifier_block **)&(*first)->next)
    if (*first == block) {
      *first = block->next;
      return 0;
    }
  return -ENOENT;
}
static int chain_call(struct notifier_block *block, unsigned long event, void *data)
{
  struct notifier_block *next;
  int result = NOTIFY_DONE;

  for (; block; block = next) {
    next = block->next;
    result = block->notifier_call(block, event, data);
    if (result & NOTIFY_STOP_MASK)
      break;
  }
  return result;
}
#define CHAINS(kind) \
  int kind##_notifier_chain_register(struct kind##_notifier_head *head, struct notifier_block *block) \
  { \
    return chain_add((struct notifier_block **)&head->head, block); \
  } \
  EXPORT_SYMBOL(kind##_notifier_chain_register); \
  int kind##_notifier_chain_unregister(struct kind##_notifier_head *head, struct notifier_block *block) \
  { \
    return chain_remove((struct notifier_block **)&head->head, block); \
  } \
  EXPORT_SYMBOL(kind##_notifier_chain_unregister); \
  int kind##_notifier_call_chain(struct kind##_notifier_head *head, unsigned long event, void *data) \
  { \
    return chain_call((struct notifier_block *)head->head, event, data); \
  } \
  EXPORT_SYMBOL(kind##_notifier_call_chain)
CHAINS(atomic);
CHAINS(blocking);
CHAINS(raw);
