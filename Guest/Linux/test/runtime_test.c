// SPDX-License-Identifier: GPL-2.0
/*
 * A module of the tests: whether the loader sets parameters of every kind, whether code goes on behind a warning, and whether work that is
 * put off runs when its time has come and nothing else happens.
 */
#define INCLUDE_VERMAGIC
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/vermagic.h>
#include <linux/workqueue.h>

static unsigned char small;
static short negative;
static unsigned long large;
static bool on, off = true;
static char *text = "";
static char name[8];
static int list[4], list_count;
module_param(small, byte, 0444);
module_param(negative, short, 0444);
module_param(large, ulong, 0444);
module_param(on, bool, 0444);
module_param(off, bool, 0444);
module_param(text, charp, 0444);
module_param_string(name, name, sizeof(name), 0444);
module_param_array(list, int, &list_count, 0444);

static unsigned long begin;
static int rounds;
static void later(struct work_struct *work);
static DECLARE_DELAYED_WORK(work, later);

static void later(struct work_struct *unused)
{
  printk("runtime test: work %d after %lu ms\n", ++rounds, (jiffies - begin) * 1000 / HZ);
  if (rounds < 3)
    schedule_delayed_work(&work, HZ / 5);
}

static int __init start(void)
{
  printk("runtime test: small %d negative %d large %lu on %d off %d text %s name %s\n", small, negative, large, on, off, text, name);
  printk("runtime test: list of %d: %d %d %d\n", list_count, list[0], list[1], list[2]);
  if (WARN_ON(list_count >= 0))
    printk("runtime test: behind the warning\n");
  begin = jiffies;
  schedule_delayed_work(&work, HZ / 5);
  return 0;
}
module_init(start);

/* What Linux's build would add. */
struct module __this_module __section(".gnu.linkonce.this_module") = {.name = KBUILD_MODNAME, .init = init_module};
MODULE_INFO(name, KBUILD_MODNAME);
MODULE_INFO(vermagic, VERMAGIC_STRING);
MODULE_INFO(depends, "");
MODULE_LICENSE("GPL");
