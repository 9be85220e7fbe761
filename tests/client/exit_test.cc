// The program ends while a session does: nothing of PESC may still run when its statics are gone.
#include <cstdlib>

#include "tests/client/support.h"

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

using Exit = Embedded;

TEST_F(Exit, WaitsForASessionThatACallbackLetGoOf) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        static LastOfAll last;
        last.armed = true;
        Flag gone;
        {
          auto client = std::make_shared<Client>(local());
          absl::StatusOr<JobHandle> job = client->submit(job_of("true"));
          auto handle = std::make_shared<JobHandle>(*std::move(job));
          Flag armed;
          handle->on_progress([&gone, &armed, handle, client](const Progress&) mutable {
            armed.wait();
            client.reset();
            handle.reset();
            gone.set();
          });
          client.reset();
          handle.reset();
          armed.set();
          gone.wait();
        }
        std::exit(0);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace pesc
