// SPDX-License-Identifier: GPL-2.0
/*
 * The networking layer as a driver sees it: interfaces, packets, NAPI. Packets go between the driver and the program as they are; there are no
 * protocols here. Each interface has one queue a direction that is used; the program's loop polls NAPI, as softirqs would.
 */
#include "internal.h"
#include <linux/cpumask.h>
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/if_arp.h>
#include <linux/mm.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <linux/filter.h>
#include <linux/static_call.h>
#include <linux/tracepoint-defs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <net/dst.h>
#include <net/flow_dissector.h>
#include <net/xdp.h>

DEFINE_PER_CPU_ALIGNED(struct softnet_data, softnet_data);
EXPORT_PER_CPU_SYMBOL(softnet_data);

/* What has arrived and not been taken, at most. */
enum { MOST_ARRIVED = 512, LINEAR_COPY = 128 };

static struct {
  struct net_device *device;
  struct sk_buff_head arrived;
  /* Packets of the program that the driver has let go of. */
  unsigned long *sent;
  unsigned int sent_count, sent_room;
  unsigned int sending;
  unsigned long dropped;
  /* The address in the device's configuration when it was looked at last. */
  unsigned long configured;
  /* Counts resets: what was being sent before is forgotten. */
  unsigned long generation;
} net;

/* MARK: Packets */
#define HEAD_SIZE(size) (SKB_DATA_ALIGN(size) + SKB_DATA_ALIGN(sizeof(struct skb_shared_info)))

/* The program's packet that an skb carries: at the beginning of its linear memory. Only skbs with this priority have one. */
struct outgoing {
  unsigned long token, generation;
};
#define OUTGOING(skb) ((struct outgoing *)((skb)->head))
enum { OUTGOING_PRIORITY = 0x504f4c58 };

static void init_skb(struct sk_buff *skb, void *head, unsigned int size)
{
  struct skb_shared_info *shared;

  memset(skb, 0, sizeof(*skb));
  skb->truesize = SKB_TRUESIZE(size);
  refcount_set(&skb->users, 1);
  skb->head = skb->data = head;
  skb_reset_tail_pointer(skb);
  skb_set_end_offset(skb, size);
  skb->mac_header = (typeof(skb->mac_header))~0U;
  skb->transport_header = (typeof(skb->transport_header))~0U;
  shared = skb_shinfo(skb);
  memset(shared, 0, offsetof(struct skb_shared_info, dataref));
  atomic_set(&shared->dataref, 1);
}

struct sk_buff *__alloc_skb(unsigned int size, gfp_t flags, int kind, int node)
{
  struct sk_buff *skb = kmalloc(sizeof(*skb), flags);
  unsigned int room = SKB_DATA_ALIGN(size);
  void *head = kmalloc(room + SKB_DATA_ALIGN(sizeof(struct skb_shared_info)), flags);

  if (!skb || !head) {
    kfree(skb);
    kfree(head);
    return NULL;
  }
  init_skb(skb, head, room);
  return skb;
}
EXPORT_SYMBOL(__alloc_skb);

struct sk_buff *__napi_alloc_skb(struct napi_struct *napi, unsigned int length, gfp_t flags)
{
  struct sk_buff *skb = __alloc_skb(length + NET_SKB_PAD + NET_IP_ALIGN, flags, 0, NUMA_NO_NODE);

  if (!skb)
    return NULL;
  skb_reserve(skb, NET_SKB_PAD + NET_IP_ALIGN);
  skb->dev = napi->dev;
  return skb;
}
EXPORT_SYMBOL(__napi_alloc_skb);

/* Around data that lies in a fragment of a page, whose reference the skb takes over. */
struct sk_buff *build_skb(void *data, unsigned int size)
{
  struct sk_buff *skb = kmalloc(sizeof(*skb), GFP_ATOMIC);

  if (!skb)
    return NULL;
  init_skb(skb, data, size - SKB_DATA_ALIGN(sizeof(struct skb_shared_info)));
  skb->head_frag = 1;
  return skb;
}
EXPORT_SYMBOL(build_skb);

void *skb_put(struct sk_buff *skb, unsigned int length)
{
  void *old = skb_tail_pointer(skb);

  skb->tail += length;
  skb->len += length;
  if (skb->tail > skb->end)
    panic("a packet of %u bytes is larger than its memory", skb->len);
  return old;
}
EXPORT_SYMBOL(skb_put);

void *skb_push(struct sk_buff *skb, unsigned int length)
{
  if (skb_headroom(skb) < length)
    panic("there is no room for %u bytes before a packet", length);
  return __skb_push(skb, length);
}
EXPORT_SYMBOL(skb_push);
void *skb_pull(struct sk_buff *skb, unsigned int length) { return skb_pull_inline(skb, length); }
EXPORT_SYMBOL(skb_pull);

/* The first `length` bytes stay. */
void skb_trim(struct sk_buff *skb, unsigned int length)
{
  if (skb->len > length && !skb_is_nonlinear(skb))
    __skb_set_length(skb, length);
}
EXPORT_SYMBOL(skb_trim);

int skb_copy_bits(const struct sk_buff *skb, int offset, void *target, int length)
{
  struct skb_shared_info *shared = skb_shinfo(skb);
  int index, part;

  if (offset < 0 || length < 0 || offset > (int)skb->len - length || shared->frag_list)
    return -EFAULT;
  part = clamp_t(int, skb_headlen(skb) - offset, 0, length);
  memcpy(target, skb->data + offset, part);
  offset = max_t(int, offset - skb_headlen(skb), 0);
  target += part;
  length -= part;
  for (index = 0; index < shared->nr_frags && length; index++) {
    const skb_frag_t *fragment = &shared->frags[index];
    int size = skb_frag_size(fragment);

    if (offset >= size) {
      offset -= size;
      continue;
    }
    part = min(size - offset, length);
    memcpy(target, skb_frag_address(fragment) + offset, part);
    target += part;
    length -= part;
    offset = 0;
  }
  return 0;
}
EXPORT_SYMBOL(skb_copy_bits);

void skb_add_rx_frag(struct sk_buff *skb, int index, struct page *page, int offset, int size, unsigned int truesize)
{
  skb_fill_page_desc(skb, index, page, offset, size);
  skb->len += size;
  skb->data_len += size;
  skb->truesize += truesize;
}
EXPORT_SYMBOL(skb_add_rx_frag);

void skb_coalesce_rx_frag(struct sk_buff *skb, int index, int size, unsigned int truesize)
{
  skb_frag_size_add(&skb_shinfo(skb)->frags[index], size);
  skb->len += size;
  skb->data_len += size;
  skb->truesize += truesize;
}
EXPORT_SYMBOL(skb_coalesce_rx_frag);

/* Moves `delta` bytes from fragments to the linear part, which must have room. */
void *__pskb_pull_tail(struct sk_buff *skb, int delta)
{
  struct skb_shared_info *shared = skb_shinfo(skb);
  int index, rest = delta;

  if (delta > skb->data_len || skb->tail + delta > skb->end)
    return NULL;
  for (index = 0; index < shared->nr_frags && rest; index++) {
    skb_frag_t *fragment = &shared->frags[index];
    int part = min_t(int, rest, skb_frag_size(fragment));

    memcpy(skb_tail_pointer(skb) + delta - rest, skb_frag_address(fragment), part);
    skb_frag_off_add(fragment, part);
    skb_frag_size_sub(fragment, part);
    rest -= part;
  }
  while (shared->nr_frags && !skb_frag_size(&shared->frags[0])) {
    __skb_frag_unref(&shared->frags[0], false);
    shared->nr_frags--;
    memmove(&shared->frags[0], &shared->frags[1], shared->nr_frags * sizeof(shared->frags[0]));
  }
  skb->tail += delta;
  skb->data_len -= delta;
  return skb_tail_pointer(skb);
}
EXPORT_SYMBOL(__pskb_pull_tail);

static void note_sent(struct sk_buff *skb)
{
  struct outgoing *outgoing = OUTGOING(skb);

  if (outgoing->generation != net.generation)
    return;
  net.sending--;
  net.sent[net.sent_count++] = outgoing->token;
}

static void free_skb(struct sk_buff *skb)
{
  struct skb_shared_info *shared = skb_shinfo(skb);
  struct sk_buff *next;
  int index;

  /* Fragments of the program's packets are pages of its clients: Linux has no reference to them. */
  if (skb->priority == OUTGOING_PRIORITY)
    note_sent(skb);
  else
    for (index = 0; index < shared->nr_frags; index++)
      __skb_frag_unref(&shared->frags[index], false);
  for (; shared->frag_list; shared->frag_list = next) {
    next = shared->frag_list->next;
    free_skb(shared->frag_list);
  }
  if (skb->head_frag)
    put_page(virt_to_head_page(skb->head));
  else
    kfree(skb->head);
  kfree(skb);
}

void consume_skb(struct sk_buff *skb)
{
  if (skb && refcount_dec_and_test(&skb->users))
    free_skb(skb);
}
EXPORT_SYMBOL(consume_skb);
void kfree_skb_reason(struct sk_buff *skb, enum skb_drop_reason reason) { consume_skb(skb); }
EXPORT_SYMBOL(kfree_skb_reason);
void napi_consume_skb(struct sk_buff *skb, int budget) { consume_skb(skb); }
EXPORT_SYMBOL(napi_consume_skb);
void __dev_kfree_skb_any(struct sk_buff *skb, enum skb_free_reason reason) { consume_skb(skb); }
EXPORT_SYMBOL(__dev_kfree_skb_any);

static int put_list(struct scatterlist *list, unsigned int count, struct page *page, unsigned int length, unsigned int offset)
{
  if (count && sg_is_last(list + count - 1))
    sg_unmark_end(list + count - 1);
  sg_set_page(list + count, page, length, offset);
  return count + 1;
}

/* The whole of a packet without a list of others, which is all that drivers here are given. */
int skb_to_sgvec(struct sk_buff *skb, struct scatterlist *list, int offset, int length)
{
  struct skb_shared_info *shared = skb_shinfo(skb);
  int index, count = 0, linear = skb_headlen(skb);

  if (offset || length != skb->len || shared->frag_list)
    return -EMSGSIZE;
  if (linear)
    count = put_list(list, count, virt_to_page(skb->data), linear, offset_in_page(skb->data));
  for (index = 0; index < shared->nr_frags; index++) {
    skb_frag_t *fragment = &shared->frags[index];

    count = put_list(list, count, skb_frag_page(fragment), skb_frag_size(fragment), skb_frag_off(fragment));
  }
  if (count)
    sg_mark_end(list + count - 1);
  return count;
}
EXPORT_SYMBOL(skb_to_sgvec);

bool skb_partial_csum_set(struct sk_buff *skb, u16 start, u16 offset)
{
  if (start > skb_headlen(skb) || start + offset + sizeof(__sum16) > skb_headlen(skb))
    return false;
  skb->ip_summed = CHECKSUM_PARTIAL;
  skb->csum_start = skb_headroom(skb) + start;
  skb->csum_offset = offset;
  skb_set_transport_header(skb, start);
  return true;
}
EXPORT_SYMBOL(skb_partial_csum_set);

/* Protocols are the business of who gets the packet. */
__be16 eth_type_trans(struct sk_buff *skb, struct net_device *device)
{
  struct ethhdr *header = (struct ethhdr *)skb->data;

  skb->dev = device;
  skb_reset_mac_header(skb);
  return skb_headlen(skb) >= ETH_HLEN ? header->h_proto : 0;
}
EXPORT_SYMBOL(eth_type_trans);

/* MARK: NAPI */
static LIST_HEAD(napi_scheduled);

void netif_napi_add_weight(
  struct net_device *device, struct napi_struct *napi, int (*poll)(struct napi_struct *, int), int weight)
{
  INIT_LIST_HEAD(&napi->poll_list);
  napi->poll = poll;
  napi->weight = weight;
  napi->dev = device;
  /* As in Linux, it begins disabled. */
  napi->state = BIT(NAPI_STATE_SCHED) | BIT(NAPI_STATE_NPSVC) | BIT(NAPI_STATE_LISTED);
}
EXPORT_SYMBOL(netif_napi_add_weight);

void __netif_napi_del(struct napi_struct *napi)
{
  list_del_init(&napi->poll_list);
  clear_bit(NAPI_STATE_LISTED, &napi->state);
}
EXPORT_SYMBOL(__netif_napi_del);

void napi_enable(struct napi_struct *napi)
{
  clear_bit(NAPI_STATE_SCHED, &napi->state);
  clear_bit(NAPI_STATE_NPSVC, &napi->state);
  clear_bit(NAPI_STATE_MISSED, &napi->state);
}
EXPORT_SYMBOL(napi_enable);

void napi_disable(struct napi_struct *napi)
{
  /* Nobody polls while this runs, so what was scheduled is taken off the list. */
  list_del_init(&napi->poll_list);
  set_bit(NAPI_STATE_SCHED, &napi->state);
  set_bit(NAPI_STATE_NPSVC, &napi->state);
}
EXPORT_SYMBOL(napi_disable);

bool napi_schedule_prep(struct napi_struct *napi)
{
  if (test_and_set_bit(NAPI_STATE_SCHED, &napi->state)) {
    set_bit(NAPI_STATE_MISSED, &napi->state);
    return false;
  }
  return true;
}
EXPORT_SYMBOL(napi_schedule_prep);

void __napi_schedule(struct napi_struct *napi) { list_add_tail(&napi->poll_list, &napi_scheduled); }
EXPORT_SYMBOL(__napi_schedule);

bool napi_complete_done(struct napi_struct *napi, int done)
{
  list_del_init(&napi->poll_list);
  if (test_and_clear_bit(NAPI_STATE_MISSED, &napi->state)) {
    /* It was asked for again meanwhile. */
    list_add_tail(&napi->poll_list, &napi_scheduled);
    return false;
  }
  clear_bit(NAPI_STATE_SCHED, &napi->state);
  return true;
}
EXPORT_SYMBOL(napi_complete_done);

int net_run(void)
{
  struct napi_struct *napi;
  int found = 0;

  while (!list_empty(&napi_scheduled)) {
    napi = list_first_entry(&napi_scheduled, struct napi_struct, poll_list);
    /* Those that are not done go to the end; none is at work twice at a time. */
    list_del_init(&napi->poll_list);
    if (napi->poll(napi, napi->weight) >= napi->weight && list_empty(&napi->poll_list))
      list_add_tail(&napi->poll_list, &napi_scheduled);
    found = 1;
  }
  return found;
}

gro_result_t napi_gro_receive(struct napi_struct *napi, struct sk_buff *skb)
{
  if (net.arrived.qlen >= MOST_ARRIVED) {
    net.dropped++;
    free_skb(skb);
    return GRO_CONSUMED;
  }
  /* The frame begins at the Ethernet header again, as it came. */
  __skb_queue_tail(&net.arrived, skb);
  return GRO_NORMAL;
}
EXPORT_SYMBOL(napi_gro_receive);

/* MARK: Interfaces */
struct net_device *alloc_etherdev_mqs(int private, unsigned int transmit, unsigned int receive)
{
  struct net_device *device = kzalloc(ALIGN(sizeof(*device), NETDEV_ALIGN) + private, GFP_KERNEL);
  unsigned int index;

  if (!device)
    return NULL;
  device->_tx = kcalloc(transmit, sizeof(*device->_tx), GFP_KERNEL);
  device->_rx = kcalloc(receive, sizeof(*device->_rx), GFP_KERNEL);
  /* Read by drivers, written by dev_addr_mod. */
  device->dev_addr = kzalloc(MAX_ADDR_LEN, GFP_KERNEL);
  if (!device->_tx || !device->_rx || !device->dev_addr) {
    kfree(device->_tx);
    kfree(device->_rx);
    kfree(device->dev_addr);
    kfree(device);
    return NULL;
  }
  for (index = 0; index < transmit; index++) {
    device->_tx[index].dev = device;
    device->_tx[index].xmit_lock_owner = -1;
    spin_lock_init(&device->_tx[index]._xmit_lock);
  }
  for (index = 0; index < receive; index++)
    device->_rx[index].dev = device;
  device->num_tx_queues = device->real_num_tx_queues = transmit;
  device->num_rx_queues = device->real_num_rx_queues = receive;
  INIT_LIST_HEAD(&device->napi_list);
  INIT_LIST_HEAD(&device->uc.list);
  INIT_LIST_HEAD(&device->mc.list);
  INIT_LIST_HEAD(&device->dev_addrs.list);
  INIT_LIST_HEAD(&device->unreg_list);
  device_initialize(&device->dev);
  device->type = ARPHRD_ETHER;
  device->hard_header_len = ETH_HLEN;
  device->min_header_len = ETH_HLEN;
  device->addr_len = ETH_ALEN;
  device->mtu = device->max_mtu = ETH_DATA_LEN;
  device->min_mtu = ETH_MIN_MTU;
  device->gso_max_size = GSO_LEGACY_MAX_SIZE;
  device->gso_max_segs = GSO_MAX_SEGS;
  device->state = BIT(__LINK_STATE_PRESENT);
  memcpy(device->name, "eth%d", sizeof("eth%d"));
  return device;
}
EXPORT_SYMBOL(alloc_etherdev_mqs);

void free_netdev(struct net_device *device)
{
  kfree(device->_tx);
  kfree(device->_rx);
  kfree(device->dev_addr);
  put_device(&device->dev);
  kfree(device);
}
EXPORT_SYMBOL(free_netdev);

static void tell_listeners(struct net_device *device, unsigned long event);

int register_netdevice(struct net_device *device)
{
  if (net.device)
    return -EBUSY;
  __skb_queue_head_init(&net.arrived);
  memcpy(device->name, "eth0", sizeof("eth0"));
  device->features |= device->hw_features;
  device->reg_state = NETREG_REGISTERED;
  net.device = device;
  tell_listeners(device, NETDEV_REGISTER);
  return 0;
}
EXPORT_SYMBOL(register_netdevice);

void unregister_netdev(struct net_device *device)
{
  if (device->flags & IFF_UP && device->netdev_ops->ndo_stop)
    device->netdev_ops->ndo_stop(device);
  tell_listeners(device, NETDEV_UNREGISTER);
  device->reg_state = NETREG_UNREGISTERED;
  if (net.device == device)
    net.device = NULL;
}
EXPORT_SYMBOL(unregister_netdev);

int netif_set_real_num_tx_queues(struct net_device *device, unsigned int count)
{
  if (!count || count > device->num_tx_queues)
    return -EINVAL;
  device->real_num_tx_queues = count;
  return 0;
}
EXPORT_SYMBOL(netif_set_real_num_tx_queues);
int netif_set_real_num_rx_queues(struct net_device *device, unsigned int count)
{
  if (!count || count > device->num_rx_queues)
    return -EINVAL;
  device->real_num_rx_queues = count;
  return 0;
}
EXPORT_SYMBOL(netif_set_real_num_rx_queues);

void netif_carrier_on(struct net_device *device) { clear_bit(__LINK_STATE_NOCARRIER, &device->state); }
EXPORT_SYMBOL(netif_carrier_on);
void netif_carrier_off(struct net_device *device) { set_bit(__LINK_STATE_NOCARRIER, &device->state); }
EXPORT_SYMBOL(netif_carrier_off);

static void stop_queues(struct net_device *device, bool stop)
{
  unsigned int index;

  for (index = 0; index < device->num_tx_queues; index++)
    if (stop)
      set_bit(__QUEUE_STATE_DRV_XOFF, &device->_tx[index].state);
    else
      clear_bit(__QUEUE_STATE_DRV_XOFF, &device->_tx[index].state);
}

void netif_tx_stop_all_queues(struct net_device *device) { stop_queues(device, true); }
EXPORT_SYMBOL(netif_tx_stop_all_queues);
void netif_tx_wake_queue(struct netdev_queue *queue) { clear_bit(__QUEUE_STATE_DRV_XOFF, &queue->state); }
EXPORT_SYMBOL(netif_tx_wake_queue);

void netif_device_detach(struct net_device *device)
{
  if (test_and_clear_bit(__LINK_STATE_PRESENT, &device->state) && netif_running(device))
    stop_queues(device, true);
}
EXPORT_SYMBOL(netif_device_detach);
void netif_device_attach(struct net_device *device)
{
  if (!test_and_set_bit(__LINK_STATE_PRESENT, &device->state) && netif_running(device))
    stop_queues(device, false);
}
EXPORT_SYMBOL(netif_device_attach);

void netif_tx_lock(struct net_device *device) {}
EXPORT_SYMBOL(netif_tx_lock);
void netif_tx_unlock(struct net_device *device) {}
EXPORT_SYMBOL(netif_tx_unlock);
/* Nobody keeps addresses of neighbours here, who would have to be told. */
void netdev_notify_peers(struct net_device *device) {}
EXPORT_SYMBOL(netdev_notify_peers);
void synchronize_net(void) {}
EXPORT_SYMBOL(synchronize_net);

/* Nobody but this thread touches interfaces, so this lock is only checked: taken means held. */
static bool rtnl_is_held;
void rtnl_lock(void)
{
  if (rtnl_is_held)
    panic("the lock of the networking layer is taken twice");
  rtnl_is_held = true;
}
EXPORT_SYMBOL(rtnl_lock);
void rtnl_unlock(void) { rtnl_is_held = false; }
EXPORT_SYMBOL(rtnl_unlock);
int rtnl_is_locked(void) { return rtnl_is_held; }
EXPORT_SYMBOL(rtnl_is_locked);

/* MARK: Listeners */
static struct notifier_block *listeners;

int register_netdevice_notifier(struct notifier_block *listener)
{
  listener->next = listeners;
  listeners = listener;
  return 0;
}
EXPORT_SYMBOL(register_netdevice_notifier);

int unregister_netdevice_notifier(struct notifier_block *listener)
{
  struct notifier_block **link;

  for (link = &listeners; *link; link = &(*link)->next)
    if (*link == listener) {
      *link = listener->next;
      return 0;
    }
  return -ENOENT;
}
EXPORT_SYMBOL(unregister_netdevice_notifier);

static void tell_listeners(struct net_device *device, unsigned long event)
{
  struct netdev_notifier_info information = {.dev = device};
  struct notifier_block *listener;

  for (listener = listeners; listener; listener = listener->next)
    listener->notifier_call(listener, event, &information);
}

/* MARK: What drivers ask for and one queue, one network and no programs make simple. */
int __netif_set_xps_queue(
  struct net_device *device, const unsigned long *mask, u16 index, enum xps_map_type type)
{
  return 0;
}
EXPORT_SYMBOL(__netif_set_xps_queue);

/* No transceiver takes the time. */
void skb_clone_tx_timestamp(struct sk_buff *skb) {}
EXPORT_SYMBOL(skb_clone_tx_timestamp);

int __xdp_rxq_info_reg(
  struct xdp_rxq_info *queue, struct net_device *device, u32 index, unsigned int napi, u32 fragment_size)
{
  memset(queue, 0, sizeof(*queue));
  queue->dev = device;
  queue->queue_index = index;
  queue->frag_size = fragment_size;
  return 0;
}
EXPORT_SYMBOL(__xdp_rxq_info_reg);
void xdp_rxq_info_unreg(struct xdp_rxq_info *queue) { memset(queue, 0, sizeof(*queue)); }
EXPORT_SYMBOL(xdp_rxq_info_unreg);
int xdp_rxq_info_reg_mem_model(struct xdp_rxq_info *queue, enum xdp_mem_type type, void *allocator)
{
  queue->mem.type = type;
  return 0;
}
EXPORT_SYMBOL(xdp_rxq_info_reg_mem_model);

DEFINE_PER_CPU(struct bpf_redirect_info, bpf_redirect_info);
EXPORT_PER_CPU_SYMBOL(bpf_redirect_info);
DEFINE_STATIC_KEY_FALSE(bpf_master_redirect_enabled_key);
EXPORT_SYMBOL(bpf_master_redirect_enabled_key);
DEFINE_STATIC_KEY_FALSE(bpf_stats_enabled_key);
EXPORT_SYMBOL(bpf_stats_enabled_key);
struct flow_dissector flow_keys_basic_dissector;
EXPORT_SYMBOL(flow_keys_basic_dissector);
/* Nobody traces: the key of the trace point is off, so the call behind it is never made. */
struct tracepoint __tracepoint_xdp_exception = {.name = "xdp_exception", .key = STATIC_KEY_INIT_FALSE};
EXPORT_SYMBOL(__tracepoint_xdp_exception);
struct static_call_key __SCK__tp_func_xdp_exception;
EXPORT_SYMBOL(__SCK__tp_func_xdp_exception);
/* net_failover asks of a device whether it is on this bus; none is. */
struct bus_type pci_bus_type = {.name = "pci"};
EXPORT_SYMBOL(pci_bus_type);

void ethtool_sprintf(u8 **data, const char *format, ...)
{
  va_list arguments;

  va_start(arguments, format);
  print_text((char *)*data, ETH_GSTRING_LEN, format, arguments);
  va_end(arguments);
  *data += ETH_GSTRING_LEN;
}
EXPORT_SYMBOL(ethtool_sprintf);

/* MARK: Addresses */
void dev_addr_mod(struct net_device *device, unsigned int offset, const void *address, size_t length)
{
  memcpy((u8 *)device->dev_addr + offset, address, length);
}
EXPORT_SYMBOL(dev_addr_mod);

int eth_prepare_mac_addr_change(struct net_device *device, void *address)
{
  struct sockaddr *wanted = address;

  return is_valid_ether_addr(wanted->sa_data) ? 0 : -EADDRNOTAVAIL;
}
EXPORT_SYMBOL(eth_prepare_mac_addr_change);

void eth_commit_mac_addr_change(struct net_device *device, void *address)
{
  dev_addr_mod(device, 0, ((struct sockaddr *)address)->sa_data, ETH_ALEN);
}
EXPORT_SYMBOL(eth_commit_mac_addr_change);

int eth_validate_addr(struct net_device *device)
{
  return is_valid_ether_addr(device->dev_addr) ? 0 : -EADDRNOTAVAIL;
}
EXPORT_SYMBOL(eth_validate_addr);

u32 ethtool_op_get_link(struct net_device *device) { return netif_carrier_ok(device); }
EXPORT_SYMBOL(ethtool_op_get_link);

netdev_features_t passthru_features_check(
  struct sk_buff *skb, struct net_device *device, netdev_features_t features)
{
  return features;
}
EXPORT_SYMBOL(passthru_features_check);

void netdev_rss_key_fill(void *buffer, size_t length) { get_random_bytes(buffer, length); }
EXPORT_SYMBOL(netdev_rss_key_fill);

#define NETWORK_MESSAGE(function)                                           \
  void function(const struct net_device *device, const char *format, ...)   \
  {                                                                         \
    struct va_format message = {.fmt = format};                             \
    va_list arguments;                                                      \
                                                                            \
    va_start(arguments, format);                                            \
    message.va = &arguments;                                                \
    _printk("%s: %pV", device->name, &message);                             \
    va_end(arguments);                                                      \
  }                                                                         \
  EXPORT_SYMBOL(function)
NETWORK_MESSAGE(netdev_err);
NETWORK_MESSAGE(netdev_warn);
NETWORK_MESSAGE(netdev_info);
void netdev_printk(const char *level, const struct net_device *device, const char *format, ...)
{
  struct va_format message = {.fmt = format};
  va_list arguments;

  va_start(arguments, format);
  message.va = &arguments;
  _printk("%s: %pV", device->name, &message);
  va_end(arguments);
}
EXPORT_SYMBOL(netdev_printk);

/* At most a line a second of each sort would be Linux's rule; here it is the first ten. */
int net_ratelimit(void)
{
  static int count;

  return count < 10 ? ++count : 0;
}
EXPORT_SYMBOL(net_ratelimit);

/* MARK: The program's entries */
struct device *net_virtio_device(void) { return net.device ? net.device->dev.parent : NULL; }

int net_describe(struct container_interface *description)
{
  unsigned int index;

  if (!net.device)
    return 0;
  description->address = 0;
  for (index = 0; index < ETH_ALEN; index++)
    description->address = description->address << 8 | net.device->dev_addr[index];
  description->mtu = net.device->mtu;
  description->is_up = netif_carrier_ok(net.device);
  description->dropped = net.dropped;
  memcpy(description->name, net.device->name, IFNAMSIZ);
  return 1;
}

static void set_receive_mode(void)
{
  if (net.device->netdev_ops->ndo_set_rx_mode)
    net.device->netdev_ops->ndo_set_rx_mode(net.device);
}

int net_open(int up)
{
  const struct net_device_ops *operations;
  int error = 0;

  if (!net.device)
    return -ENODEV;
  operations = net.device->netdev_ops;
  rtnl_lock();
  if (up && !(net.device->flags & IFF_UP)) {
    set_bit(__LINK_STATE_START, &net.device->state);
    if (operations->ndo_open)
      error = operations->ndo_open(net.device);
    if (error) {
      clear_bit(__LINK_STATE_START, &net.device->state);
    } else {
      net.device->flags |= IFF_UP | IFF_BROADCAST | IFF_MULTICAST;
      stop_queues(net.device, false);
      set_receive_mode();
    }
  } else if (!up && net.device->flags & IFF_UP) {
    clear_bit(__LINK_STATE_START, &net.device->state);
    if (operations->ndo_stop)
      operations->ndo_stop(net.device);
    net.device->flags &= ~IFF_UP;
  }
  rtnl_unlock();
  return error;
}

/* What the device's configuration says, where it has an address; 0: it has none. */
static unsigned long configured_address(void)
{
  struct virtio_device *device = dev_to_virtio(net.device->dev.parent);
  unsigned long address = 0;
  unsigned int index;
  u8 bytes[ETH_ALEN];

  if (!(device->features & BIT_ULL(VIRTIO_NET_F_MAC)))
    return 0;
  /* Byte by byte, and again if it was changed meanwhile. */
  virtio_cread_bytes(device, offsetof(struct virtio_net_config, mac), bytes, sizeof(bytes));
  for (index = 0; index < ETH_ALEN; index++)
    address = address << 8 | bytes[index];
  return address;
}

/*
 * Linux's driver reads the address once, when it probes. A host that gives the interface another one later says so in the
 * configuration. The driver is not told to set it: it would send it to the device, and undo what the host does meanwhile.
 */
void net_follow_address(void)
{
  unsigned long address;
  unsigned int index;
  u8 bytes[ETH_ALEN];

  if (!net.device)
    return;
  address = configured_address();
  if (address == net.configured)
    return;
  net.configured = address;
  for (index = 0; index < ETH_ALEN; index++)
    bytes[index] = address >> (40 - 8 * index);
  if (is_valid_ether_addr(bytes)) {
    rtnl_lock();
    dev_addr_mod(net.device, 0, bytes, ETH_ALEN);
    rtnl_unlock();
  } else
    _printk("%s: the device's new address is none\n", net.device->name);
}

/* After the device was set up again: it has forgotten its address and what it is to receive. */
void net_restored(void)
{
  unsigned long address = 0;
  unsigned int index;

  if (!net.device)
    return;
  for (index = 0; index < ETH_ALEN; index++)
    address = address << 8 | net.device->dev_addr[index];
  if (address != configured_address())
    net_set_address(address);
  net.configured = configured_address();
  rtnl_lock();
  set_receive_mode();
  rtnl_unlock();
}

int net_set_address(unsigned long address)
{
  struct sockaddr wanted = {.sa_family = ARPHRD_ETHER};
  unsigned int index;
  int error;

  if (!net.device || !net.device->netdev_ops->ndo_set_mac_address)
    return -ENODEV;
  for (index = 0; index < ETH_ALEN; index++)
    wanted.sa_data[index] = address >> (40 - 8 * index);
  rtnl_lock();
  error = net.device->netdev_ops->ndo_set_mac_address(net.device, &wanted);
  rtnl_unlock();
  if (!error)
    net.configured = configured_address();
  return error;
}

/* Room for the driver's header and for what belongs to us. */
enum { OUTGOING_ROOM = 128 };

/*
 * `physical` begins with a virtio header, `header` is the same readable. The data is not copied: its `struct page` is only computed
 * with. A driver reads none of it, as long as the headers that it asks for are in the linear part; virtio_net asks for none.
 */
enum container_submission net_transmit(unsigned long token, const void *header, unsigned long physical, unsigned int length, int more)
{
  const struct virtio_net_hdr *virtio = header;
  struct netdev_queue *queue;
  struct sk_buff *skb;
  netdev_tx_t result;

  if (!net.device || !(net.device->flags & IFF_UP))
    return CONTAINER_REFUSED;
  queue = netdev_get_tx_queue(net.device, 0);
  if (net.sending + net.sent_count >= 1024 || netif_xmit_frozen_or_stopped(queue) || !netif_device_present(net.device))
    return CONTAINER_FULL;
  if (!net.sent) {
    net.sent = kcalloc(1024, sizeof(*net.sent), GFP_KERNEL);
    if (!net.sent)
      return CONTAINER_FULL;
  }
  skb = __alloc_skb(OUTGOING_ROOM, GFP_KERNEL, 0, NUMA_NO_NODE);
  if (!skb)
    return CONTAINER_FULL;
  skb_reserve(skb, OUTGOING_ROOM);
  OUTGOING(skb)->token = token;
  OUTGOING(skb)->generation = net.generation;
  skb->dev = net.device;
  /* Without a look at the `struct page`, for which there is no memory. */
  skb_fill_page_desc_noacc(skb, 0, pfn_to_page(physical >> PAGE_SHIFT), offset_in_page(physical), length);
  skb->len = skb->data_len = length;
  if (virtio->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
    skb->ip_summed = CHECKSUM_PARTIAL;
    skb->csum_start = skb_headroom(skb) + __virtio16_to_cpu(true, virtio->csum_start);
    skb->csum_offset = __virtio16_to_cpu(true, virtio->csum_offset);
  }
  skb->priority = OUTGOING_PRIORITY;
  net.sending++;
  __this_cpu_write(softnet_data.xmit.more, more);
  result = net.device->netdev_ops->ndo_start_xmit(skb, net.device);
  if (result == NETDEV_TX_OK)
    return CONTAINER_ACCEPTED;
  net.sending--;
  skb->priority = 0;
  skb_shinfo(skb)->nr_frags = 0;
  consume_skb(skb);
  return CONTAINER_FULL;
}

int net_sent(unsigned long *token)
{
  if (!net.sent_count)
    return 0;
  *token = net.sent[--net.sent_count];
  return 1;
}

/* Copies the next packet, with a virtio header before it, to `data`; its length, 0: there is none. What does not fit is cut off. */
int net_receive(void *data, unsigned int size)
{
  struct sk_buff *skb = __skb_dequeue(&net.arrived);
  struct virtio_net_hdr_mrg_rxbuf *header = data;
  unsigned int position = sizeof(*header), part;
  struct skb_shared_info *shared;
  int index;

  if (!skb)
    return 0;
  if (virtio_net_hdr_from_skb(skb, &header->hdr, true, true, 0))
    memset(header, 0, sizeof(*header));
  header->num_buffers = cpu_to_le16(1);
  shared = skb_shinfo(skb);
  part = min(skb_headlen(skb), size - position);
  memcpy(data + position, skb->data, part);
  position += part;
  for (index = 0; index < shared->nr_frags; index++) {
    part = min(skb_frag_size(&shared->frags[index]), size - position);
    memcpy(data + position, skb_frag_address(&shared->frags[index]), part);
    position += part;
  }
  consume_skb(skb);
  return position;
}

int net_has_arrived(void) { return net.device && net.arrived.qlen > 0; }

/* The device has been reset: what was being sent is the program's again. */
void net_forget(void)
{
  net.generation++;
  net.sending = net.sent_count = 0;
}
