// SPDX-License-Identifier: GPL-2.0
/*
 * A module of the tests: whether the loader sets parameters of every kind, whether code goes on behind a warning and at the fixup of an
 * exception, whether work that is put off runs when its time has come and nothing else happens, and whether kthreads, work that
 * sleeps, timers, wait queues and locks do what Linux's do. It says what it sees; the test reads it.
 */
#define INCLUDE_VERMAGIC
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/semaphore.h>
#include <linux/timer.h>
#include <linux/vermagic.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <asm/asm.h>

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

/* MARK: Exceptions */
/* -EFAULT, or what lies there. */
static noinline long load(unsigned long address)
{
  long value = 0, error = 0;

  asm volatile("1: movq (%[address]), %[value]\n2:\n" _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_EFAULT_REG, %[error])
               : [value] "+r"(value), [error] "+r"(error)
               : [address] "r"(address));
  return error ? error : value;
}

/* Whether the instruction may be executed here. */
static noinline int read_register(unsigned int number)
{
  int error = 0;
  unsigned int low = 0, high = 0;

  asm volatile("1: rdmsr\n2:\n" _ASM_EXTABLE_TYPE_REG(1b, 2b, EX_TYPE_RDMSR_SAFE, %[error])
               : "+a"(low), "+d"(high), [error] "+r"(error)
               : "c"(number));
  return error;
}

static noinline void once(int round) { WARN_ON_ONCE(round >= 0); }

static void exceptions(void)
{
  static long here = 4711;
  int round;

  printk("runtime test: loads %ld %ld %ld\n", load((unsigned long)&here), load(0x30), load(0xffff888000000000));
  printk("runtime test: rdmsr %d\n", read_register(0x10));
  for (round = 0; round < 3; round++)
    once(round);
  WARN(1, "runtime test: a warning with %d\n", 42);
  printk("runtime test: behind the warnings\n");
}

/* MARK: Tasks */
static DEFINE_MUTEX(mutex);
static DECLARE_RWSEM(shared);
static DEFINE_SEMAPHORE(semaphore);
static DECLARE_WAIT_QUEUE_HEAD(queue);
static DECLARE_COMPLETION(first_done);
static struct task_struct *server;
static int asked, answered, inside, most_inside, holders;

/* Answers questions until it is stopped. */
static int serve(void *data)
{
  while (!kthread_should_stop()) {
    wait_event(queue, asked > answered || kthread_should_stop());
    if (asked > answered) {
      msleep(2);
      answered++;
      wake_up(&queue);
    }
  }
  return *(int *)data;
}

static int hold(void *data)
{
  int round;

  for (round = 0; round < 3; round++) {
    mutex_lock(&mutex);
    inside++;
    most_inside = max(most_inside, inside);
    usleep_range(300, 600);
    inside--;
    mutex_unlock(&mutex);
    schedule();
  }
  down_read(&shared);
  msleep(5);
  up_read(&shared);
  down(&semaphore);
  if (++holders == 3)
    complete(&first_done);
  up(&semaphore);
  return 0;
}

static void tasks(void)
{
  static int result = 77;
  unsigned long begin;
  int index;

  printk("runtime test: in %s, %d\n", current->comm, current->flags & PF_KTHREAD ? 1 : 0);
  server = kthread_run(serve, &result, "server/%d", 5);
  printk("runtime test: server %s\n", server->comm);
  for (index = 0; index < 5; index++) {
    asked++;
    wake_up(&queue);
    if (!wait_event_timeout(queue, answered == asked, HZ))
      printk("runtime test: no answer\n");
  }
  printk("runtime test: %d answers\n", answered);
  printk("runtime test: a wait that is in vain %d\n", wait_event_timeout(queue, false, HZ / 50) == 0);
  begin = jiffies;
  down_write(&shared);
  for (index = 0; index < 3; index++)
    kthread_run(hold, NULL, "holder/%d", index);
  msleep(40);
  printk("runtime test: holders %d of 0\n", holders);
  up_write(&shared);
  wait_for_completion(&first_done);
  printk("runtime test: at most %d inside, holders %d, took time %d\n", most_inside, holders, jiffies - begin >= HZ / 25);
  printk("runtime test: server ended with %d\n", kthread_stop(server));
  printk("runtime test: timeout %lu\n", wait_for_completion_timeout(&first_done, HZ / 100));
}

/* MARK: Timers and tasklets */
static struct timer_list timer;
static struct hrtimer precise;
static struct tasklet_struct tasklet;
static int rings, precise_rings, tasklets;

static void ring(struct timer_list *unused)
{
  if (++rings < 4)
    mod_timer(&timer, jiffies + 2);
  tasklet_schedule(&tasklet);
}
static enum hrtimer_restart ring_precisely(struct hrtimer *self)
{
  hrtimer_forward_now(self, ns_to_ktime(3 * NSEC_PER_MSEC));
  return ++precise_rings < 6 ? HRTIMER_RESTART : HRTIMER_NORESTART;
}
static void tasklet_runs(struct tasklet_struct *unused) { tasklets++; }

static void timers(void)
{
  unsigned long begin = jiffies;

  timer_setup(&timer, ring, 0);
  hrtimer_init(&precise, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
  precise.function = ring_precisely;
  tasklet_setup(&tasklet, tasklet_runs);
  mod_timer(&timer, jiffies + 2);
  hrtimer_start(&precise, ns_to_ktime(3 * NSEC_PER_MSEC), HRTIMER_MODE_REL);
  while ((rings < 4 || precise_rings < 6) && time_before(jiffies, begin + 2 * HZ))
    msleep(5);
  printk("runtime test: rings %d %d, tasklets %d, pending %d %d\n", rings, precise_rings, tasklets, timer_pending(&timer),
         hrtimer_active(&precise));
  mod_timer(&timer, jiffies + HZ);
  printk("runtime test: taken back %d %d\n", del_timer_sync(&timer), del_timer_sync(&timer));
}

/* MARK: Work */
static struct workqueue_struct *ordered;
static int order[4], order_count;
static struct order_work {
  struct work_struct work;
  int number;
} works[4];

static void note(struct work_struct *work)
{
  struct order_work *own = container_of(work, struct order_work, work);

  /* The first sleep longest. */
  msleep(4 * (4 - own->number));
  if (order_count < 4)
    order[order_count++] = own->number;
}

static void queues(void)
{
  int round, index;

  ordered = alloc_ordered_workqueue("ordered/%d", 0, 1);
  for (round = 0; round < 2; round++) {
    order_count = 0;
    for (index = 0; index < 4; index++) {
      works[index].number = index;
      INIT_WORK(&works[index].work, note);
      queue_work(round ? system_wq : ordered, &works[index].work);
    }
    for (index = 0; index < 4; index++)
      flush_work(&works[index].work);
    printk("runtime test: %s work %d %d %d %d\n", round ? "parallel" : "ordered", order[0], order[1], order[2], order[3]);
  }
  queue_work(ordered, &works[0].work);
  printk("runtime test: queued twice %d\n", queue_work(ordered, &works[0].work));
  printk("runtime test: cancelled %d %d\n", cancel_work_sync(&works[0].work), cancel_work_sync(&works[0].work));
  destroy_workqueue(ordered);
}

static int everything(void *unused)
{
  tasks();
  timers();
  queues();
  printk("runtime test: all done\n");
  return 0;
}

/* What ends the container: for tests of what it says then. */
static char *die = "";
module_param(die, charp, 0444);

static noinline int endless(int depth)
{
  volatile char room[512];

  room[depth % 512] = depth;
  return depth < 1000000 ? endless(depth + 1) + room[0] : 0;
}

static int do_die(void *unused)
{
  msleep(1);
  if (!strcmp(die, "bug"))
    BUG_ON(die[0] == 'b');
  if (!strcmp(die, "store"))
    *(volatile int *)0x40 = 1;
  if (!strcmp(die, "stack"))
    printk("runtime test: %d\n", endless(0));
  if (!strcmp(die, "deadlock")) {
    mutex_lock(&mutex);
    mutex_lock(&mutex);
  }
  printk("runtime test: not dead\n");
  return 0;
}

static int __init start(void)
{
  printk("runtime test: small %d negative %d large %lu on %d off %d text %s name %s\n", small, negative, large, on, off, text, name);
  printk("runtime test: list of %d: %d %d %d\n", list_count, list[0], list[1], list[2]);
  if (WARN_ON(list_count >= 0))
    printk("runtime test: behind the warning\n");
  if (*die) {
    kthread_run(do_die, NULL, "dies");
    return 0;
  }
  exceptions();
  /* On the thread that initialises modules, which is the program's, and on a kthread. */
  tasks();
  asked = answered = holders = most_inside = 0;
  reinit_completion(&first_done);
  kthread_run(everything, NULL, "everything");
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
