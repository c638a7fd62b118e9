// Functions that glibc declares only under _GNU_SOURCE, which the Swift importer must not see here: it would give
// system structures other members than swift-system's C module has.
#define _GNU_SOURCE 1
#include <pthread.h>

void castor_set_thread_name(const char *name) { pthread_setname_np(pthread_self(), name); }
