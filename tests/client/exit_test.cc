// The program ends while a session does: nothing of PESC may still run when its statics are gone.
#include <cstdlib>
#include <functional>
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

#ifdef __SANITIZE_THREAD__
constexpr int kThreads = 2;  // it has one of its own
#else
constexpr int kThreads = 1;
#endif

// Made before PESC's own statics, so it goes after them.
struct LastOfAll {
  std::function<void()> then;
  ~LastOfAll() {
    if (then) then();
  }
};

class Exit : public Embedded {
 protected:
  struct Held {
    std::optional<Client> client;
    std::optional<JobHandle> handle;
    Flag armed, gone;
  };

  // A callback holds the session's last references, and lets go of them on its own thread: when
  // main() does, or when the statics of PESC are gone.
  void end_while_a_session_does(bool late) {
    static LastOfAll last;
    static Held& held = *new Held;
    last.then = [late] {
      if (late) {
        held.armed.set();
        held.gone.wait();
      } else if (threads() > kThreads) {
        _exit(3);
      }
    };
    held.client = local();
    held.handle = *held.client->submit(job_of("true"));
    JobHandle(*held.handle).on_progress([](const Progress&) {
      held.armed.wait();
      held.client.reset();
      held.handle.reset();
      held.gone.set();
    });
    if (!late) {
      held.armed.set();
      held.gone.wait();
    }
    std::exit(0);
  }
};

TEST_F(Exit, WaitsForASessionThatACallbackLetGoOf) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(end_while_a_session_does(false), testing::ExitedWithCode(0), "");
}

TEST_F(Exit, LeavesASessionAloneThatACallbackLetsGoOfLater) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(end_while_a_session_does(true), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace pesc
