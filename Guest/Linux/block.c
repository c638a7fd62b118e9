// SPDX-License-Identifier: GPL-2.0
/*
 * The block layer as a driver sees it: tag sets, disks, requests. Requests come from the program with contiguous data, and go to
 * the driver's `queue_rq` at once; nothing is merged or scheduled here, which is what Linux does with scheduler `none`.
 */
#include "internal.h"
#include <linux/blk-integrity.h>
#include <linux/blk-mq-virtio.h>
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/scatterlist.h>

/* What a request needs besides what Linux knows of it. The driver's own part lies behind it. */
struct entry {
  struct entry *next;
  unsigned long token;
  /* The program waits for it; else somebody in here does. */
  bool is_outside;
  bool is_done;
  blk_status_t status;
  struct bio bio;
  struct bio_vec data;
  /* The last member: the driver finds its part at the end of it. */
  struct request request;
};

static struct {
  struct blk_mq_tag_set *set;
  struct gendisk *disk;
  struct entry *free, **entries;
  unsigned int entry_count;
  unsigned int in_flight, frozen, quiesced;
  /* The queue is a twin's: nobody in here may put anything into it. */
  bool is_handed_over;
  /* Completions that the program has not taken. */
  struct entry *done_first, **done_last;
} block = {.done_last = &block.done_first};
/* Woken when a request has ended. */
static DECLARE_WAIT_QUEUE_HEAD(request_ended);

/* MARK: Tag sets */
int blk_mq_alloc_tag_set(struct blk_mq_tag_set *set)
{
  unsigned int index;

  if (block.set)
    return -EBUSY;
  set->tags = NULL;
  block.entries = kmalloc_array(set->queue_depth, sizeof(*block.entries), GFP_KERNEL);
  if (!block.entries)
    return -ENOMEM;
  block.entry_count = set->queue_depth;
  for (index = 0; index < set->queue_depth; index++) {
    struct entry *entry = kzalloc(sizeof(*entry) + set->cmd_size, GFP_KERNEL);

    if (!entry)
      return -ENOMEM;
    entry->request.tag = index;
    if (set->ops->init_request && set->ops->init_request(set, &entry->request, 0, NUMA_NO_NODE))
      return -ENOMEM;
    block.entries[index] = entry;
    entry->next = block.free;
    block.free = entry;
  }
  block.set = set;
  return 0;
}
EXPORT_SYMBOL(blk_mq_alloc_tag_set);

void blk_mq_free_tag_set(struct blk_mq_tag_set *set)
{
  struct entry *entry;

  if (block.set != set)
    return;
  while ((entry = block.free)) {
    block.free = entry->next;
    if (set->ops->exit_request)
      set->ops->exit_request(set, &entry->request, 0);
    kfree(entry);
  }
  kfree(block.entries);
  block.entry_count = 0;
  block.set = NULL;
}
EXPORT_SYMBOL(blk_mq_free_tag_set);

/* One processor: every queue serves it. */
void blk_mq_map_queues(struct blk_mq_queue_map *map)
{
  if (map->mq_map)
    map->mq_map[0] = map->queue_offset;
}
EXPORT_SYMBOL(blk_mq_map_queues);

void blk_mq_virtio_map_queues(struct blk_mq_queue_map *map, struct virtio_device *device, int first)
{
  blk_mq_map_queues(map);
}
EXPORT_SYMBOL(blk_mq_virtio_map_queues);

/* MARK: Disks */
static struct blk_mq_hw_ctx *hardware_queue;

struct gendisk *__blk_mq_alloc_disk(struct blk_mq_tag_set *set, void *data, struct lock_class_key *key)
{
  struct gendisk *disk = kzalloc(sizeof(*disk), GFP_KERNEL);
  struct request_queue *queue = kzalloc(sizeof(*queue), GFP_KERNEL);
  struct block_device *whole = kzalloc(sizeof(*whole), GFP_KERNEL);

  hardware_queue = kzalloc(sizeof(*hardware_queue), GFP_KERNEL);
  if (!disk || !queue || !whole || !hardware_queue || block.disk)
    return ERR_PTR(-ENOMEM);
  queue->mq_ops = set->ops;
  queue->tag_set = set;
  queue->queuedata = data;
  queue->nr_hw_queues = 1;
  queue->disk = disk;
  /* blk_set_default_limits */
  queue->limits.max_segments = BLK_MAX_SEGMENTS;
  queue->limits.max_discard_segments = 1;
  queue->limits.max_segment_size = BLK_MAX_SEGMENT_SIZE;
  queue->limits.max_hw_sectors = queue->limits.max_sectors = BLK_SAFE_MAX_SECTORS;
  queue->limits.logical_block_size = queue->limits.physical_block_size = queue->limits.io_min = 512;
  hardware_queue->queue = queue;
  device_initialize(&whole->bd_device);
  whole->bd_disk = disk;
  whole->bd_queue = queue;
  disk->part0 = whole;
  disk->queue = queue;
  block.disk = disk;
  return disk;
}
EXPORT_SYMBOL(__blk_mq_alloc_disk);

static bool disk_is_added;

int device_add_disk(struct device *parent, struct gendisk *disk, const struct attribute_group **groups)
{
  disk->part0->bd_device.parent = parent;
  dev_set_name(&disk->part0->bd_device, "%s", disk->disk_name);
  disk_is_added = true;
  return attributes_add(&disk->part0->bd_device, "block", groups);
}
EXPORT_SYMBOL(device_add_disk);

void del_gendisk(struct gendisk *disk)
{
  attributes_forget(&disk->part0->bd_device);
  disk_is_added = false;
}
EXPORT_SYMBOL(del_gendisk);

void put_disk(struct gendisk *disk)
{
  if (disk->fops && disk->fops->free_disk)
    disk->fops->free_disk(disk);
  kfree(disk->part0->bd_device.kobj.name);
  kfree(disk->part0);
  kfree(disk->queue);
  kfree(hardware_queue);
  kfree(disk);
  block.disk = NULL;
}
EXPORT_SYMBOL(put_disk);

int __register_blkdev(unsigned int major, const char *name, void (*probe)(dev_t))
{
  /* The first of those that Linux hands out itself. */
  return major ? 0 : 254;
}
EXPORT_SYMBOL(__register_blkdev);
void unregister_blkdev(unsigned int major, const char *name) {}
EXPORT_SYMBOL(unregister_blkdev);

bool set_capacity_and_notify(struct gendisk *disk, sector_t sectors)
{
  bool changed = disk->part0->bd_nr_sectors != sectors;

  disk->part0->bd_nr_sectors = sectors;
  return changed;
}
EXPORT_SYMBOL(set_capacity_and_notify);

void set_disk_ro(struct gendisk *disk, bool read_only)
{
  if (read_only)
    set_bit(GD_READ_ONLY, &disk->state);
  else
    clear_bit(GD_READ_ONLY, &disk->state);
}
EXPORT_SYMBOL(set_disk_ro);

/* MARK: Limits */
#define LIMIT(function, type, field)                            \
  void function(struct request_queue *queue, type value) { queue->limits.field = value; } \
  EXPORT_SYMBOL(function)
LIMIT(blk_queue_alignment_offset, unsigned int, alignment_offset);
LIMIT(blk_queue_io_min, unsigned int, io_min);
LIMIT(blk_queue_io_opt, unsigned int, io_opt);
LIMIT(blk_queue_logical_block_size, unsigned int, logical_block_size);
LIMIT(blk_queue_max_discard_sectors, unsigned int, max_discard_sectors);
LIMIT(blk_queue_max_discard_segments, unsigned short, max_discard_segments);
LIMIT(blk_queue_max_hw_sectors, unsigned int, max_hw_sectors);
LIMIT(blk_queue_max_secure_erase_sectors, unsigned int, max_secure_erase_sectors);
LIMIT(blk_queue_max_segment_size, unsigned int, max_segment_size);
LIMIT(blk_queue_max_segments, unsigned short, max_segments);
LIMIT(blk_queue_max_write_zeroes_sectors, unsigned int, max_write_zeroes_sectors);
LIMIT(blk_queue_physical_block_size, unsigned int, physical_block_size);

void blk_queue_write_cache(struct request_queue *queue, bool cached, bool fua)
{
  if (cached)
    set_bit(QUEUE_FLAG_WC, &queue->queue_flags);
  else
    clear_bit(QUEUE_FLAG_WC, &queue->queue_flags);
}
EXPORT_SYMBOL(blk_queue_write_cache);

/* MARK: Requests */
static struct entry *entry_of(struct request *request) { return container_of(request, struct entry, request); }

static struct entry *take(blk_opf_t operation)
{
  struct entry *entry = block.free;
  int tag;

  if (!entry)
    return NULL;
  block.free = entry->next;
  tag = entry->request.tag;
  memset(entry, 0, sizeof(*entry));
  entry->request.tag = tag;
  entry->request.internal_tag = -1;
  entry->request.q = block.disk->queue;
  entry->request.mq_hctx = hardware_queue;
  entry->request.cmd_flags = operation;
  INIT_LIST_HEAD(&entry->request.queuelist);
  return entry;
}

static void release(struct entry *entry)
{
  entry->next = block.free;
  block.free = entry;
}

static void set_data(struct entry *entry, unsigned long physical, unsigned int length)
{
  struct bio *bio = &entry->bio;

  entry->data.bv_page = pfn_to_page(physical >> PAGE_SHIFT);
  entry->data.bv_offset = offset_in_page(physical);
  entry->data.bv_len = length;
  bio->bi_io_vec = &entry->data;
  bio->bi_vcnt = 1;
  bio->bi_opf = entry->request.cmd_flags;
  bio->bi_iter.bi_sector = entry->request.__sector;
  bio->bi_iter.bi_size = length;
  entry->request.bio = entry->request.biotail = bio;
  entry->request.__data_len = length;
}

static blk_status_t give(struct entry *entry, bool last)
{
  struct blk_mq_queue_data data = {.rq = &entry->request, .last = last};
  blk_status_t status = block.disk->queue->mq_ops->queue_rq(hardware_queue, &data);

  if (status == BLK_STS_OK)
    block.in_flight++;
  return status;
}

struct request *blk_mq_alloc_request(struct request_queue *queue, blk_opf_t operation, blk_mq_req_flags_t flags)
{
  struct entry *entry;

  if (block.is_handed_over)
    return ERR_PTR(-EBUSY);
  entry = take(operation);
  return entry ? &entry->request : ERR_PTR(-EWOULDBLOCK);
}
EXPORT_SYMBOL(blk_mq_alloc_request);

void blk_mq_free_request(struct request *request) { release(entry_of(request)); }
EXPORT_SYMBOL(blk_mq_free_request);

int blk_rq_map_kern(
  struct request_queue *queue, struct request *request, void *data, unsigned int length, gfp_t flags)
{
  set_data(entry_of(request), virt_to_phys(data), length);
  request->nr_phys_segments = 1;
  return 0;
}
EXPORT_SYMBOL(blk_rq_map_kern);

blk_status_t blk_execute_rq(struct request *request, bool at_head)
{
  struct entry *entry = entry_of(request);
  blk_status_t status = give(entry, true);

  if (status != BLK_STS_OK)
    return status;
  wait_event(request_ended, entry->is_done);
  return entry->status;
}
EXPORT_SYMBOL(blk_execute_rq);

/* The largest piece of contiguous data, in bytes; drivers say -1 where their device has no limit. */
static unsigned int segment_size(struct request_queue *queue)
{
  return min_t(unsigned int, queue->limits.max_segment_size, SZ_4M) & ~511u;
}

int __blk_rq_map_sg(
  struct request_queue *queue, struct request *request, struct scatterlist *list, struct scatterlist **last)
{
  unsigned int count = 0, length, limit = segment_size(queue);
  struct entry *entry = entry_of(request);
  unsigned long physical;

  if (request->rq_flags & RQF_SPECIAL_PAYLOAD) {
    sg_set_page(list, request->special_vec.bv_page, request->special_vec.bv_len, request->special_vec.bv_offset);
    sg_mark_end(list);
    *last = list;
    return 1;
  }
  physical = page_to_phys(entry->data.bv_page) + entry->data.bv_offset;
  for (length = entry->data.bv_len; length; count++) {
    unsigned int part = min(length, limit);

    if (count)
      list = sg_next(list);
    sg_set_page(list, pfn_to_page(physical >> PAGE_SHIFT), part, offset_in_page(physical));
    physical += part;
    length -= part;
  }
  sg_mark_end(list);
  *last = list;
  return count;
}
EXPORT_SYMBOL(__blk_rq_map_sg);

void blk_mq_start_request(struct request *request) { WRITE_ONCE(request->state, MQ_RQ_IN_FLIGHT); }
EXPORT_SYMBOL(blk_mq_start_request);

void blk_mq_complete_request(struct request *request)
{
  WRITE_ONCE(request->state, MQ_RQ_COMPLETE);
  request->q->mq_ops->complete(request);
}
EXPORT_SYMBOL(blk_mq_complete_request);

void blk_mq_end_request(struct request *request, blk_status_t status)
{
  struct entry *entry = entry_of(request);

  WRITE_ONCE(request->state, MQ_RQ_IDLE);
  block.in_flight--;
  entry->status = status;
  entry->is_done = true;
  if (waitqueue_active(&request_ended))
    wake_up_all(&request_ended);
  if (!entry->is_outside)
    return;
  entry->next = NULL;
  *block.done_last = entry;
  block.done_last = &entry->next;
}
EXPORT_SYMBOL(blk_mq_end_request);

void blk_mq_end_request_batch(struct io_comp_batch *batch)
{
  struct request *request;

  while ((request = rq_list_pop(&batch->req_list)))
    blk_mq_end_request(request, BLK_STS_OK);
}
EXPORT_SYMBOL(blk_mq_end_request_batch);

/* The driver could not do it now and wants to see it again. */
void blk_mq_requeue_request(struct request *request, bool kick)
{
  struct entry *entry = entry_of(request);

  block.in_flight--;
  if (give(entry, true) != BLK_STS_OK) {
    block.in_flight++;
    blk_mq_end_request(request, BLK_STS_IOERR);
  }
}
EXPORT_SYMBOL(blk_mq_requeue_request);

int blk_status_to_errno(blk_status_t status)
{
  switch (status) {
  case BLK_STS_OK: return 0;
  case BLK_STS_NOTSUPP: return -EOPNOTSUPP;
  case BLK_STS_TIMEOUT: return -ETIMEDOUT;
  case BLK_STS_NOSPC: return -ENOSPC;
  case BLK_STS_RESOURCE:
  case BLK_STS_DEV_RESOURCE: return -ENOMEM;
  case BLK_STS_AGAIN: return -EAGAIN;
  default: return -EIO;
  }
}
EXPORT_SYMBOL(blk_status_to_errno);

/* MARK: Stopping */
void blk_mq_stop_hw_queue(struct blk_mq_hw_ctx *queue) { set_bit(BLK_MQ_S_STOPPED, &queue->state); }
EXPORT_SYMBOL(blk_mq_stop_hw_queue);
void blk_mq_start_stopped_hw_queues(struct request_queue *queue, bool async)
{
  clear_bit(BLK_MQ_S_STOPPED, &hardware_queue->state);
}
EXPORT_SYMBOL(blk_mq_start_stopped_hw_queues);
void blk_mq_quiesce_queue_nowait(struct request_queue *queue) { block.quiesced++; }
EXPORT_SYMBOL(blk_mq_quiesce_queue_nowait);
void blk_mq_unquiesce_queue(struct request_queue *queue) { block.quiesced--; }
EXPORT_SYMBOL(blk_mq_unquiesce_queue);
void blk_mq_freeze_queue(struct request_queue *queue)
{
  block.frozen++;
  wait_event(request_ended, !block.in_flight);
}
EXPORT_SYMBOL(blk_mq_freeze_queue);
void blk_mq_unfreeze_queue(struct request_queue *queue) { block.frozen--; }
EXPORT_SYMBOL(blk_mq_unfreeze_queue);

/* MARK: The program's entries */
void disk_hand_over(int handed_over) { block.is_handed_over = handed_over; }
struct device *disk_device(void) { return block.disk && disk_is_added ? block.disk->part0->bd_device.parent : NULL; }

void disk_limits(struct container_queue *queue)
{
  queue->segment_size = segment_size(block.disk->queue);
  queue->segments = block.disk->queue->limits.max_segments;
}

/* The device has been reset: what was in flight is nobody's any more. */
void disk_forget(void)
{
  struct entry *entry;
  unsigned int index;

  for (index = 0; index < block.entry_count; index++) {
    entry = block.entries[index];
    if (entry->request.state != MQ_RQ_IN_FLIGHT)
      continue;
    WRITE_ONCE(entry->request.state, MQ_RQ_IDLE);
    block.in_flight--;
    entry->is_done = true;
    entry->status = BLK_STS_IOERR;
    if (entry->is_outside)
      release(entry);
  }
  wake_up_all(&request_ended);
  /* Completions that were not taken are submitted again too. */
  while ((entry = block.done_first)) {
    block.done_first = entry->next;
    release(entry);
  }
  block.done_last = &block.done_first;
  if (hardware_queue)
    clear_bit(BLK_MQ_S_STOPPED, &hardware_queue->state);
}

int disk_describe(struct container_disk *description)
{
  struct queue_limits *limits;

  if (!block.disk || !disk_is_added)
    return 0;
  limits = &block.disk->queue->limits;
  description->sectors = block.disk->part0->bd_nr_sectors;
  description->block_size = limits->logical_block_size;
  description->maximum_transfer = min_t(
    u64, (u64)limits->max_segments * segment_size(block.disk->queue),
    min_t(u64, (u64)limits->max_hw_sectors << 9, SZ_1M));
  description->read_only = test_bit(GD_READ_ONLY, &block.disk->state);
  description->can_flush = test_bit(QUEUE_FLAG_WC, &block.disk->queue->queue_flags);
  description->can_discard = limits->max_discard_sectors > 0;
  description->can_write_zeroes = limits->max_write_zeroes_sectors > 0;
  memcpy(description->name, block.disk->disk_name, sizeof(description->name));
  return 1;
}

enum container_submission disk_submit(
  unsigned long token, enum container_operation operation, unsigned long sector, unsigned long physical,
  unsigned int length)
{
  static const enum req_op operations[] = {
    REQ_OP_READ, REQ_OP_WRITE, REQ_OP_FLUSH, REQ_OP_DISCARD, REQ_OP_WRITE_ZEROES};
  struct entry *entry;
  blk_status_t status;

  if (!block.disk || !disk_is_added)
    return CONTAINER_REFUSED;
  if (block.frozen || block.quiesced || test_bit(BLK_MQ_S_STOPPED, &hardware_queue->state))
    return CONTAINER_FULL;
  entry = take(operations[operation]);
  if (!entry)
    return CONTAINER_FULL;
  entry->is_outside = true;
  entry->token = token;
  entry->request.__sector = sector;
  if (operation != CONTAINER_FLUSH)
    set_data(entry, physical, length);
  if (operation == CONTAINER_READ || operation == CONTAINER_WRITE)
    entry->request.nr_phys_segments = DIV_ROUND_UP(length, segment_size(block.disk->queue));
  else if (operation == CONTAINER_DISCARD)
    entry->request.nr_phys_segments = 1;
  status = give(entry, false);
  if (status == BLK_STS_OK)
    return CONTAINER_ACCEPTED;
  release(entry);
  return status == BLK_STS_RESOURCE || status == BLK_STS_DEV_RESOURCE ? CONTAINER_FULL : CONTAINER_REFUSED;
}

void disk_commit(void)
{
  if (block.disk && block.disk->queue->mq_ops->commit_rqs)
    block.disk->queue->mq_ops->commit_rqs(hardware_queue);
}

int disk_completion(unsigned long *token, enum container_status *status)
{
  struct entry *entry = block.done_first;

  if (!entry)
    return 0;
  block.done_first = entry->next;
  if (!block.done_first)
    block.done_last = &block.done_first;
  *token = entry->token;
  *status = entry->status == BLK_STS_OK      ? CONTAINER_SUCCESS
          : entry->status == BLK_STS_NOTSUPP ? CONTAINER_UNSUPPORTED
                                             : CONTAINER_ERROR;
  release(entry);
  return 1;
}
