#include "runtime/worker/keeper_client/carried_keeper.h"

// PESC_KEEPER_FILE is given by CMake, which also makes this file depend on it.
asm(".pushsection .rodata\n"
    ".balign 16\n"
    "pesc_carried_keeper_begin:\n"
    ".incbin \"" PESC_KEEPER_FILE
    "\"\n"
    "pesc_carried_keeper_end:\n"
    ".byte 0\n"
    ".popsection\n"
    ".hidden pesc_carried_keeper_begin\n"
    ".hidden pesc_carried_keeper_end\n"
    ".globl pesc_carried_keeper_begin\n"
    ".globl pesc_carried_keeper_end\n");

extern "C" {
extern const char pesc_carried_keeper_begin[] __attribute__((visibility("hidden")));
extern const char pesc_carried_keeper_end[] __attribute__((visibility("hidden")));
}

namespace pesc::worker {

std::string_view carried_keeper() {
  return {pesc_carried_keeper_begin,
          static_cast<size_t>(pesc_carried_keeper_end - pesc_carried_keeper_begin)};
}

}  // namespace pesc::worker
