// SPDX-License-Identifier: GPL-2.0
/*
 * slab, pages and DMA. All memory is one contiguous piece that the program gave: a direct map of its own, so that Linux's arithmetic
 * between addresses, physical addresses and `struct page` is right for it.
 */
#include "internal.h"
#include <linux/dma-mapping.h>
#include <linux/mm.h>

unsigned long page_offset_base, vmemmap_base, phys_base;
EXPORT_SYMBOL(page_offset_base);
EXPORT_SYMBOL(vmemmap_base);
EXPORT_SYMBOL(phys_base);

/* What a page is used for: the order of its size class, the first page of a run, or a later one. */
enum { PAGE_FREE, PAGE_CLASS = 1, PAGE_RUN = 64, PAGE_REST = 65 };
enum { SMALLEST = 5, LARGEST = 11, MAXIMUM_PAGES = 65536 };

static unsigned char use[MAXIMUM_PAGES];
static unsigned int pages_in_all;
static void *free_blocks[LARGEST + 1];
static char *pool;

void memory_start(void)
{
  pool = container_host->memory;
  pages_in_all = min_t(unsigned long, container_host->memory_size >> PAGE_SHIFT, MAXIMUM_PAGES);
  page_offset_base = (unsigned long)pool - container_host->memory_physical;
  vmemmap_base = (unsigned long)container_host->page_structs -
                 (container_host->memory_physical >> PAGE_SHIFT) * sizeof(struct page);
}

static void *take_run(unsigned int count)
{
  unsigned int start, length = 0;

  for (start = 0; start + length < pages_in_all;) {
    if (use[start + length] != PAGE_FREE) {
      start += length + 1;
      length = 0;
    } else if (++length == count) {
      use[start] = PAGE_RUN;
      memset(use + start + 1, PAGE_REST, count - 1);
      return pool + ((unsigned long)start << PAGE_SHIFT);
    }
  }
  return NULL;
}

/*
 * Pages for rings come from the end, where nothing else is: a driver that gives its rings back and asks for the same gets the same
 * addresses, which others may have been told.
 */
static void *take_last_run(unsigned int count)
{
  unsigned int end, length = 0;

  for (end = pages_in_all; end >= length + 1;) {
    if (use[end - length - 1] != PAGE_FREE) {
      end -= length + 1;
      length = 0;
    } else if (++length == count) {
      use[end - count] = PAGE_RUN;
      memset(use + end - count + 1, PAGE_REST, count - 1);
      return pool + ((unsigned long)(end - count) << PAGE_SHIFT);
    }
  }
  return NULL;
}

static void release_run(void *block)
{
  unsigned long page = ((char *)block - pool) >> PAGE_SHIFT;

  if (page >= pages_in_all || use[page] != PAGE_RUN)
    panic("memory that was not allocated is freed: %p", block);
  do
    use[page++] = PAGE_FREE;
  while (page < pages_in_all && use[page] == PAGE_REST);
}

static void *take(size_t size, gfp_t flags)
{
  unsigned int order = max_t(unsigned int, SMALLEST, size > 1 ? fls_long(size - 1) : 0);
  char *block;

  if (!size)
    return ZERO_SIZE_PTR;
  if (order > LARGEST) {
    size = PAGE_ALIGN(size);
    block = take_run(size >> PAGE_SHIFT);
  } else {
    size = 1ul << order;
    if (!free_blocks[order]) {
      char *page = take_run(1);
      unsigned long offset;

      if (!page)
        return NULL;
      use[(page - pool) >> PAGE_SHIFT] = PAGE_CLASS + order;
      for (offset = 0; offset < PAGE_SIZE; offset += size) {
        *(void **)(page + offset) = free_blocks[order];
        free_blocks[order] = page + offset;
      }
    }
    block = free_blocks[order];
    free_blocks[order] = *(void **)block;
  }
  if (block && flags & __GFP_ZERO)
    memset(block, 0, size);
  return block;
}

void *__kmalloc(size_t size, gfp_t flags) { return take(size, flags); }
EXPORT_SYMBOL(__kmalloc);

/* Callers take a class from the table by size and say the size too, which is all that is needed. */
struct kmem_cache *kmalloc_caches[NR_KMALLOC_TYPES][KMALLOC_SHIFT_HIGH + 1];
EXPORT_SYMBOL(kmalloc_caches);

/* Of constant sizes for which there is no class. */
void *kmalloc_large(size_t size, gfp_t flags) { return take(size, flags); }
EXPORT_SYMBOL(kmalloc_large);

void *kmalloc_trace(struct kmem_cache *cache, gfp_t flags, size_t size) { return take(size, flags); }
EXPORT_SYMBOL(kmalloc_trace);

void kfree(const void *block)
{
  unsigned long page = ((char *)block - pool) >> PAGE_SHIFT;

  if (ZERO_OR_NULL_PTR(block))
    return;
  if (page < pages_in_all && use[page] > PAGE_CLASS && use[page] <= PAGE_CLASS + LARGEST) {
    unsigned int order = use[page] - PAGE_CLASS;

    *(void **)block = free_blocks[order];
    free_blocks[order] = (void *)block;
  } else {
    release_run((void *)block);
  }
}
EXPORT_SYMBOL(kfree);

/* The bytes that a block has in fact. */
size_t __ksize(const void *block)
{
  unsigned long page = ((char *)block - pool) >> PAGE_SHIFT, end;

  if (ZERO_OR_NULL_PTR(block))
    return 0;
  if (use[page] > PAGE_CLASS && use[page] <= PAGE_CLASS + LARGEST)
    return 1ul << (use[page] - PAGE_CLASS);
  for (end = page + 1; end < pages_in_all && use[end] == PAGE_REST; end++)
    ;
  return (end - page) << PAGE_SHIFT;
}
size_t ksize(const void *block) { return __ksize(block); }
EXPORT_SYMBOL(ksize);

void *krealloc(const void *block, size_t size, gfp_t flags)
{
  size_t old = __ksize(block);
  void *result;

  if (!size) {
    kfree(block);
    return ZERO_SIZE_PTR;
  }
  if (old >= size)
    return (void *)block;
  result = take(size, flags);
  if (result && old) {
    memcpy(result, block, old);
    kfree(block);
  }
  return result;
}
EXPORT_SYMBOL(krealloc);
void kfree_sensitive(const void *block)
{
  if (!ZERO_OR_NULL_PTR(block))
    memzero_explicit((void *)block, __ksize(block));
  kfree(block);
}
EXPORT_SYMBOL(kfree_sensitive);
void *__kmalloc_node(size_t size, gfp_t flags, int node) { return take(size, flags); }
EXPORT_SYMBOL(__kmalloc_node);
void *kmalloc_node_trace(struct kmem_cache *cache, gfp_t flags, int node, size_t size) { return take(size, flags); }
EXPORT_SYMBOL(kmalloc_node_trace);
void *kmalloc_large_node(size_t size, gfp_t flags, int node) { return take(size, flags); }
EXPORT_SYMBOL(kmalloc_large_node);
void *__kmalloc_node_track_caller(size_t size, gfp_t flags, int node, unsigned long caller) { return take(size, flags); }
EXPORT_SYMBOL(__kmalloc_node_track_caller);
void *__kmalloc_track_caller(size_t size, gfp_t flags, unsigned long caller) { return take(size, flags); }
EXPORT_SYMBOL(__kmalloc_track_caller);

/* All memory here is contiguous. */
void *kvmalloc_node(size_t size, gfp_t flags, int node) { return take(size, flags); }
EXPORT_SYMBOL(kvmalloc_node);
void kvfree(const void *block) { kfree(block); }
EXPORT_SYMBOL(kvfree);
void *vmalloc(unsigned long size) { return take(PAGE_ALIGN(size), GFP_KERNEL); }
EXPORT_SYMBOL(vmalloc);
void *vzalloc(unsigned long size) { return take(PAGE_ALIGN(size), GFP_KERNEL | __GFP_ZERO); }
EXPORT_SYMBOL(vzalloc);
void *vmalloc_node(unsigned long size, int node) { return vmalloc(size); }
EXPORT_SYMBOL(vmalloc_node);
void *vzalloc_node(unsigned long size, int node) { return vzalloc(size); }
EXPORT_SYMBOL(vzalloc_node);
void vfree(const void *block) { kfree(block); }
EXPORT_SYMBOL(vfree);

unsigned long __get_free_pages(gfp_t flags, unsigned int order)
{
  struct page *page = alloc_pages(flags & ~__GFP_HIGHMEM, order);

  return page ? (unsigned long)page_address(page) : 0;
}
EXPORT_SYMBOL(__get_free_pages);
unsigned long get_zeroed_page(gfp_t flags) { return __get_free_pages(flags | __GFP_ZERO, 0); }
EXPORT_SYMBOL(get_zeroed_page);
void free_pages(unsigned long address, unsigned int order)
{
  if (address)
    __free_pages(virt_to_page((void *)address), order);
}
EXPORT_SYMBOL(free_pages);

/* MARK: Caches of objects: sizes with a name, and an initialiser that runs whenever an object is given out. */
struct kmem_cache {
  unsigned int size;
  slab_flags_t flags;
  void (*initialise)(void *);
};

struct kmem_cache *kmem_cache_create_usercopy(
  const char *name, unsigned int size, unsigned int align, slab_flags_t flags, unsigned int start, unsigned int length,
  void (*initialise)(void *))
{
  struct kmem_cache *cache = kmalloc(sizeof(*cache), GFP_KERNEL);

  if (!cache)
    return NULL;
  /* Blocks of a power of two lie at multiples of it. */
  cache->size = max(size, align);
  cache->flags = flags;
  cache->initialise = initialise;
  return cache;
}
EXPORT_SYMBOL(kmem_cache_create_usercopy);
struct kmem_cache *kmem_cache_create(
  const char *name, unsigned int size, unsigned int align, slab_flags_t flags, void (*initialise)(void *))
{
  return kmem_cache_create_usercopy(name, size, align, flags, 0, 0, initialise);
}
EXPORT_SYMBOL(kmem_cache_create);
void kmem_cache_destroy(struct kmem_cache *cache) { kfree(cache); }
EXPORT_SYMBOL(kmem_cache_destroy);
void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t flags)
{
  void *object = take(cache->size, flags);

  if (object && cache->initialise)
    cache->initialise(object);
  return object;
}
EXPORT_SYMBOL(kmem_cache_alloc);
void *kmem_cache_alloc_node(struct kmem_cache *cache, gfp_t flags, int node) { return kmem_cache_alloc(cache, flags); }
EXPORT_SYMBOL(kmem_cache_alloc_node);
void kmem_cache_free(struct kmem_cache *cache, void *object) { kfree(object); }
EXPORT_SYMBOL(kmem_cache_free);
unsigned int kmem_cache_size(struct kmem_cache *cache) { return cache->size; }
EXPORT_SYMBOL(kmem_cache_size);

void *alloc_pages_exact(size_t size, gfp_t flags)
{
  void *block = take_last_run(PAGE_ALIGN(size) >> PAGE_SHIFT);

  if (block && flags & __GFP_ZERO)
    memset(block, 0, PAGE_ALIGN(size));
  return block;
}
EXPORT_SYMBOL(alloc_pages_exact);

void free_pages_exact(void *block, size_t size) { release_run(block); }
EXPORT_SYMBOL(free_pages_exact);

bool is_vmalloc_addr(const void *address) { return false; }
EXPORT_SYMBOL(is_vmalloc_addr);

/* MARK: Pages with counts of their users. Only these have a `struct page` that says something. */
struct page *alloc_pages(gfp_t flags, unsigned int order)
{
  void *block = take_run(1u << order);
  struct page *page;
  unsigned int index;

  if (!block)
    return NULL;
  if (flags & __GFP_ZERO)
    memset(block, 0, PAGE_SIZE << order);
  page = virt_to_page(block);
  memset(page, 0, sizeof(*page) << order);
  init_page_count(page);
  if (order && flags & __GFP_COMP)
    for (index = 1; index < 1u << order; index++)
      set_compound_head(page + index, page);
  return page;
}
EXPORT_SYMBOL(alloc_pages);

void __free_pages(struct page *page, unsigned int order)
{
  if (put_page_testzero(page))
    release_run(page_to_virt(page));
}
EXPORT_SYMBOL(__free_pages);

/* The last user has put the page. */
void __folio_put(struct folio *folio) { release_run(page_to_virt(&folio->page)); }
EXPORT_SYMBOL(__folio_put);

/* A place for `size` bytes in the page that `fragment` describes, or in a new one; the caller takes what it uses of it. */
bool skb_page_frag_refill(unsigned int size, struct page_frag *fragment, gfp_t flags)
{
  if (fragment->page) {
    if (page_ref_count(fragment->page) == 1) {
      fragment->offset = 0;
      return true;
    }
    if (fragment->offset + size <= fragment->size)
      return true;
    put_page(fragment->page);
    fragment->page = NULL;
  }
  if (size > PAGE_SIZE)
    return false;
  fragment->page = alloc_pages(flags, 0);
  fragment->offset = 0;
  fragment->size = PAGE_SIZE;
  return fragment->page != NULL;
}
EXPORT_SYMBOL(skb_page_frag_refill);

DEFINE_STATIC_KEY_FALSE(devmap_managed_key);
EXPORT_SYMBOL(devmap_managed_key);
DEFINE_STATIC_KEY_MAYBE(CONFIG_HUGETLB_PAGE_OPTIMIZE_VMEMMAP_DEFAULT_ON, hugetlb_optimize_vmemmap_key);
EXPORT_SYMBOL(hugetlb_optimize_vmemmap_key);

/* DMA: devices see guest-physical memory. */
void *dma_alloc_attrs(struct device *device, size_t size, dma_addr_t *handle, gfp_t flags, unsigned long attributes)
{
  void *block = alloc_pages_exact(size, flags | __GFP_ZERO);

  if (block)
    *handle = virt_to_phys(block);
  return block;
}
EXPORT_SYMBOL(dma_alloc_attrs);

void dma_free_attrs(
  struct device *device, size_t size, void *block, dma_addr_t handle, unsigned long attributes)
{
  release_run(block);
}
EXPORT_SYMBOL(dma_free_attrs);

dma_addr_t dma_map_page_attrs(
  struct device *device, struct page *page, size_t offset, size_t size, enum dma_data_direction direction,
  unsigned long attributes)
{
  return page_to_phys(page) + offset;
}
EXPORT_SYMBOL(dma_map_page_attrs);

void dma_unmap_page_attrs(
  struct device *device, dma_addr_t address, size_t size, enum dma_data_direction direction,
  unsigned long attributes)
{
}
EXPORT_SYMBOL(dma_unmap_page_attrs);

void dma_sync_single_for_cpu(
  struct device *device, dma_addr_t address, size_t size, enum dma_data_direction direction)
{
}
EXPORT_SYMBOL(dma_sync_single_for_cpu);

void dma_sync_single_for_device(
  struct device *device, dma_addr_t address, size_t size, enum dma_data_direction direction)
{
}
EXPORT_SYMBOL(dma_sync_single_for_device);

int dma_set_mask(struct device *device, u64 mask)
{
  if (device->dma_mask)
    *device->dma_mask = mask;
  return 0;
}
EXPORT_SYMBOL(dma_set_mask);

int dma_set_coherent_mask(struct device *device, u64 mask)
{
  device->coherent_dma_mask = mask;
  return 0;
}
EXPORT_SYMBOL(dma_set_coherent_mask);

size_t dma_max_mapping_size(struct device *device) { return SIZE_MAX; }
EXPORT_SYMBOL(dma_max_mapping_size);

bool dma_need_sync(struct device *device, dma_addr_t address) { return false; }
EXPORT_SYMBOL(dma_need_sync);
