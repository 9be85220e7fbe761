#include "common/failure.h"

#include <cstdio>
#include <new>

namespace samples {

int guarded(const char* program, const std::function<int()>& body) {
  int code = kFailed;
  try {
    code = body();
  } catch (const Failure& failure) {
    std::fprintf(stderr, "%s: %s\n", program, failure.what());
    return failure.code();
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s: the computer has too little free memory for this size\n", program);
    return kFailed;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return kFailed;
  }
  // What was printed is a result too: a full disk under standard output must not pass as success.
  if (code == kSuccess && std::fflush(stdout) != 0) {
    std::fprintf(stderr, "%s: standard output cannot be written\n", program);
    return kFailed;
  }
  return code;
}

}  // namespace samples
