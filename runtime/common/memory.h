// How a program of ours keeps memory: for main() only, a host program's malloc is its own.
#pragma once

#include <malloc.h>

namespace pesc::common {

// The pieces of bulk transfers are of up to 1 MiB, some 16 at a time. By itself malloc gives such
// ones back to the kernel as soon as they are free, which then clears every page of the next.
inline void keep_freed_pieces() {
#ifdef __GLIBC__
  ::mallopt(M_MMAP_THRESHOLD, 4 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 16 << 20);
#endif
}

}  // namespace pesc::common
