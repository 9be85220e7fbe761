// The program ends while a session does: nothing of PESC may still run when its statics are gone.
#include <cstdlib>
#include <optional>

#include "tests/client/support.h"

#ifdef __SANITIZE_ADDRESS__
// OpenSSL's clean-up at exit leaves the error state of the thread that initialised it.
extern "C" const char* __lsan_default_suppressions() { return "leak:libcrypto"; }
#endif

namespace pesc {
namespace {

int threads() {
  int count = 0;
  for ([[maybe_unused]] const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    ++count;
  }
  return count;
}

// Made before PESC's own statics, so it goes after them.
struct LastOfAll {
  bool armed = false;
  ~LastOfAll() {
    if (armed && threads() > 1) _exit(3);
  }
};

class Exit : public Embedded {
 protected:
  // A callback holds the session's last references, and lets go of them on its own thread.
  void end_while_a_session_does() {
    struct Held {
      std::optional<Client> client;
      std::optional<JobHandle> handle;
      Flag armed, gone;
    };
    static LastOfAll last;
    last.armed = true;
    static Held held;
    held.client = local();
    held.handle = *held.client->submit(job_of("true"));
    JobHandle(*held.handle).on_progress([](const Progress&) {
      held.armed.wait();
      held.client.reset();
      held.handle.reset();
      held.gone.set();
    });
    held.armed.set();
    held.gone.wait();
    std::exit(0);
  }
};

TEST_F(Exit, WaitsForASessionThatACallbackLetGoOf) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(end_while_a_session_does(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace pesc
