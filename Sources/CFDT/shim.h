#include <libfdt.h>

// fdt_totalsize is a macro.
static inline unsigned castor_fdt_totalsize(const void *tree) { return fdt_totalsize(tree); }
