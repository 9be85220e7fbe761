// core_instructions WORK NUMBER: does it, for valgrind to count (bench/instructions/check.py).
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "bench/instructions/work.h"

int main(int argc, char** argv) {
  using namespace pesc::bench;
  if (argc != 3) return 2;
  const std::string_view work = argv[1];
  const auto number = static_cast<uint32_t>(std::strtoul(argv[2], nullptr, 10));
  uint64_t done = 0;
  if (work == "coordinator") {
    done = coordinator_work(number);
  } else if (work == "restore") {
    done = restore_work(number);
  } else if (work == "worker") {
    done = worker_work(number);
  } else if (work == "codec") {
    done = codec_work(number);
  } else {
    return 2;
  }
  std::printf("%llu\n", static_cast<unsigned long long>(done));
  return 0;
}
