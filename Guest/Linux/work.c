// SPDX-License-Identifier: GPL-2.0
/*
 * Work queues and tasklets. Work runs on kthreads, so that it may sleep; there are as many of them as sleep in work, and one more. Tasklets run on
 * the program's thread.
 */
#include "internal.h"
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/timer.h>
#include <linux/wait.h>

/* Aligned so that its address has room for a work's flags. */
struct workqueue_struct {
  char name[32];
  /* How many works of it may run at a time, and do. */
  int most, running;
  bool is_draining;
} __aligned(1 << WORK_STRUCT_FLAG_BITS);

/* A kthread that runs work. */
struct worker {
  struct task_struct *task;
  struct work_struct *work;
  struct workqueue_struct *queue;
  struct list_head entry;
};
/* More would not help: so many works that sleep wait for each other. */
#define MOST_WORKERS 32

static LIST_HEAD(all_work);
static LIST_HEAD(all_workers);
static unsigned int worker_count;
/* Woken whenever a work has ended. */
static DECLARE_WAIT_QUEUE_HEAD(work_ended);

#define STANDARD_QUEUE(variable) \
  static struct workqueue_struct variable##_queue = {.name = #variable, .most = WQ_DFL_ACTIVE}; \
  struct workqueue_struct *system_##variable = &variable##_queue; \
  EXPORT_SYMBOL(system_##variable)
STANDARD_QUEUE(wq);
STANDARD_QUEUE(highpri_wq);
STANDARD_QUEUE(long_wq);
STANDARD_QUEUE(unbound_wq);
STANDARD_QUEUE(freezable_wq);
STANDARD_QUEUE(power_efficient_wq);
STANDARD_QUEUE(freezable_power_efficient_wq);

struct workqueue_struct *alloc_workqueue(const char *format, unsigned int flags, int most, ...)
{
  struct workqueue_struct *queue = kzalloc(sizeof(*queue), GFP_KERNEL);
  va_list arguments;

  if (!queue)
    return NULL;
  va_start(arguments, most);
  print_text(queue->name, sizeof(queue->name), format, arguments);
  va_end(arguments);
  queue->most = most ? most : WQ_DFL_ACTIVE;
  return queue;
}
EXPORT_SYMBOL(alloc_workqueue);

/* The queue of a work that is pending or was. */
static struct workqueue_struct *queue_of(struct work_struct *work)
{
  return (void *)(atomic_long_read(&work->data) & WORK_STRUCT_WQ_DATA_MASK);
}

static struct worker *worker_of(struct work_struct *work)
{
  struct worker *worker;

  list_for_each_entry (worker, &all_workers, entry)
    if (worker->work == work)
      return worker;
  return NULL;
}

/* The first that may run now: not if it runs already, or as many of its queue as may. */
static struct work_struct *next_work(void)
{
  struct work_struct *work;

  list_for_each_entry (work, &all_work, entry)
    if (queue_of(work)->running < queue_of(work)->most && !worker_of(work))
      return work;
  return NULL;
}

static bool work_run_next(struct worker *worker)
{
  struct work_struct *work = next_work();
  work_func_t function;

  if (!work)
    return false;
  worker->queue = queue_of(work);
  worker->work = work;
  worker->queue->running++;
  function = work->func;
  list_del_init(&work->entry);
  clear_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work));
  /* It may free itself. */
  function(work);
  worker->queue->running--;
  worker->work = NULL;
  wake_up_all(&work_ended);
  return true;
}

static int worker_main(void *argument)
{
  struct worker *worker = argument;

  for (;;) {
    while (work_run_next(worker))
      ;
    set_current_state(TASK_IDLE);
    schedule();
  }
}

/* Gives work that can run to a worker; whether there was any. */
int work_start(void)
{
  struct worker *worker;

  if (!next_work())
    return 0;
  list_for_each_entry (worker, &all_workers, entry)
    if (!worker->work)
      return wake_up_process(worker->task) || tasks_are_ready();
  if (worker_count >= MOST_WORKERS)
    return 0;
  worker = kzalloc(sizeof(*worker), GFP_KERNEL);
  if (!worker)
    panic("no memory for a worker");
  worker->task = kthread_create_on_node(worker_main, worker, NUMA_NO_NODE, "kworker/%u", worker_count);
  if (IS_ERR(worker->task))
    panic("no memory for a worker");
  worker_count++;
  list_add_tail(&worker->entry, &all_workers);
  wake_up_process(worker->task);
  return 1;
}

/* MARK: Queueing */
bool queue_work_on(int processor, struct workqueue_struct *queue, struct work_struct *work)
{
  if (test_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work)))
    return false;
  if (queue->is_draining && !(current->flags & PF_KTHREAD))
    panic("work for a queue that is given up: %s", queue->name);
  atomic_long_set(&work->data, (unsigned long)queue | WORK_STRUCT_PENDING);
  list_add_tail(&work->entry, &all_work);
  return true;
}
EXPORT_SYMBOL(queue_work_on);
bool queue_work_node(int node, struct workqueue_struct *queue, struct work_struct *work)
{
  return queue_work_on(0, queue, work);
}
EXPORT_SYMBOL(queue_work_node);

static bool work_take_back(struct work_struct *work)
{
  if (!test_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work)))
    return false;
  list_del_init(&work->entry);
  clear_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(work));
  return true;
}

/* Until the work does not run any more; a work may wait for everything but itself. */
static void work_await(struct work_struct *work)
{
  struct worker *worker = worker_of(work);

  if (worker && worker->task == current)
    return;
  wait_event(work_ended, worker_of(work) == NULL);
}

bool flush_work(struct work_struct *work)
{
  bool found = work_pending(work) || worker_of(work);

  wait_event(work_ended, !work_pending(work) && worker_of(work) == NULL);
  return found;
}
EXPORT_SYMBOL(flush_work);
bool cancel_work(struct work_struct *work) { return work_take_back(work); }
EXPORT_SYMBOL(cancel_work);
bool cancel_work_sync(struct work_struct *work)
{
  bool was_pending = work_take_back(work);

  work_await(work);
  return was_pending;
}
EXPORT_SYMBOL(cancel_work_sync);
unsigned int work_busy(struct work_struct *work)
{
  return (work_pending(work) ? WORK_BUSY_PENDING : 0) | (worker_of(work) ? WORK_BUSY_RUNNING : 0);
}
EXPORT_SYMBOL(work_busy);
struct work_struct *current_work(void)
{
  struct worker *worker;

  list_for_each_entry (worker, &all_workers, entry)
    if (worker->task == current)
      return worker->work;
  return NULL;
}
EXPORT_SYMBOL(current_work);

static bool is_empty(struct workqueue_struct *queue)
{
  struct work_struct *work;

  list_for_each_entry (work, &all_work, entry)
    if (queue_of(work) == queue)
      return false;
  return queue->running == 0;
}

void __flush_workqueue(struct workqueue_struct *queue) { wait_event(work_ended, is_empty(queue)); }
EXPORT_SYMBOL(__flush_workqueue);
void drain_workqueue(struct workqueue_struct *queue)
{
  queue->is_draining = true;
  __flush_workqueue(queue);
  queue->is_draining = false;
}
EXPORT_SYMBOL(drain_workqueue);
void destroy_workqueue(struct workqueue_struct *queue)
{
  drain_workqueue(queue);
  kfree(queue);
}
EXPORT_SYMBOL(destroy_workqueue);
void __warn_flushing_systemwide_wq(void) {}
EXPORT_SYMBOL(__warn_flushing_systemwide_wq);

/* MARK: Work for later */
void delayed_work_timer_fn(struct timer_list *timer)
{
  struct delayed_work *work = from_timer(work, timer, timer);

  /* Pending since it was put off. */
  list_add_tail(&work->work.entry, &all_work);
}
EXPORT_SYMBOL(delayed_work_timer_fn);

bool queue_delayed_work_on(
  int processor, struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay)
{
  if (!delay)
    return queue_work_on(processor, queue, &work->work);
  if (work_pending(&work->work))
    return false;
  work->wq = queue;
  atomic_long_set(&work->work.data, (unsigned long)queue | WORK_STRUCT_PENDING);
  time_update();
  mod_timer(&work->timer, jiffies + delay);
  return true;
}
EXPORT_SYMBOL(queue_delayed_work_on);

static bool later_take_back(struct delayed_work *work)
{
  if (!timer_delete(&work->timer))
    return work_take_back(&work->work);
  clear_bit(WORK_STRUCT_PENDING_BIT, work_data_bits(&work->work));
  return true;
}

bool mod_delayed_work_on(
  int processor, struct workqueue_struct *queue, struct delayed_work *work, unsigned long delay)
{
  bool was_pending = later_take_back(work);

  queue_delayed_work_on(processor, queue, work, delay);
  return was_pending;
}
EXPORT_SYMBOL(mod_delayed_work_on);

bool flush_delayed_work(struct delayed_work *work)
{
  if (timer_delete(&work->timer))
    list_add_tail(&work->work.entry, &all_work);
  return flush_work(&work->work);
}
EXPORT_SYMBOL(flush_delayed_work);
bool cancel_delayed_work(struct delayed_work *work) { return later_take_back(work); }
EXPORT_SYMBOL(cancel_delayed_work);
bool cancel_delayed_work_sync(struct delayed_work *work)
{
  bool was_pending = later_take_back(work);

  work_await(&work->work);
  return was_pending;
}
EXPORT_SYMBOL(cancel_delayed_work_sync);

/* MARK: Tasklets */
static struct tasklet_struct *first_tasklet, **last_tasklet = &first_tasklet;

void tasklet_setup(struct tasklet_struct *tasklet, void (*callback)(struct tasklet_struct *))
{
  memset(tasklet, 0, sizeof(*tasklet));
  tasklet->callback = callback;
  tasklet->use_callback = true;
}
EXPORT_SYMBOL(tasklet_setup);
void tasklet_init(struct tasklet_struct *tasklet, void (*function)(unsigned long), unsigned long data)
{
  memset(tasklet, 0, sizeof(*tasklet));
  tasklet->func = function;
  tasklet->data = data;
}
EXPORT_SYMBOL(tasklet_init);

/* Of a tasklet that was not scheduled yet, which is marked by now. */
void __tasklet_schedule(struct tasklet_struct *tasklet)
{
  tasklet->next = NULL;
  *last_tasklet = tasklet;
  last_tasklet = &tasklet->next;
}
EXPORT_SYMBOL(__tasklet_schedule);
void __tasklet_hi_schedule(struct tasklet_struct *tasklet) { __tasklet_schedule(tasklet); }
EXPORT_SYMBOL(__tasklet_hi_schedule);

int tasklets_run(void)
{
  struct tasklet_struct *tasklet, *next = first_tasklet;
  int found = 0;

  first_tasklet = NULL;
  last_tasklet = &first_tasklet;
  while ((tasklet = next)) {
    next = tasklet->next;
    if (atomic_read(&tasklet->count)) {
      /* Not before it is allowed again. */
      __tasklet_schedule(tasklet);
      continue;
    }
    clear_bit(TASKLET_STATE_SCHED, &tasklet->state);
    if (tasklet->use_callback)
      tasklet->callback(tasklet);
    else
      tasklet->func(tasklet->data);
    found = 1;
  }
  return found;
}

void tasklet_kill(struct tasklet_struct *tasklet)
{
  while (test_bit(TASKLET_STATE_SCHED, &tasklet->state)) {
    if (current->flags & PF_KTHREAD)
      msleep(1);
    else
      tasklets_run();
  }
}
EXPORT_SYMBOL(tasklet_kill);
void tasklet_unlock_wait(struct tasklet_struct *tasklet) {}
EXPORT_SYMBOL(tasklet_unlock_wait);
void tasklet_unlock_spin_wait(struct tasklet_struct *tasklet) {}
EXPORT_SYMBOL(tasklet_unlock_spin_wait);
void tasklet_unlock(struct tasklet_struct *tasklet) { clear_bit(TASKLET_STATE_RUN, &tasklet->state); }
EXPORT_SYMBOL(tasklet_unlock);

/* MARK: The program's loop */
/* Runs what can run now; whether there was anything. */
int work_run(void)
{
  int found = net_run();

  time_update();
  found |= timers_run();
  found |= tasklets_run();
  found |= work_start();
  found |= tasks_run();
  return found;
}

/* When `work_run` is wanted again. */
unsigned long work_next(void) { return tasks_are_ready() || next_work() ? container_host->now() : timers_next(); }
