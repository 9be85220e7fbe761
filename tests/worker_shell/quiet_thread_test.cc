// Work that takes turns.
#include "runtime/worker/shell/quiet_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>

namespace pesc::worker {
namespace {

// The first would never end if it were not left for the second.
TEST(QuietThread, NoWorkWaitsForTheEndOfAnother) {
  rpc::Loop loop;
  QuietThread quiet(loop);
  auto second_done = std::make_shared<std::atomic<bool>>(false);
  kj::Promise<std::string> first = quiet.run([second_done]() -> std::optional<std::string> {
    if (*second_done) return "first";
    return std::nullopt;
  });
  kj::Promise<std::string> second =
      quiet.run([second_done, slices = 0]() mutable -> std::optional<std::string> {
        if (++slices < 3) return std::nullopt;
        *second_done = true;
        return "second";
      });
  EXPECT_EQ(loop.wait(kj::mv(second)), "second");
  EXPECT_EQ(loop.wait(kj::mv(first)), "first");
}

TEST(QuietThread, EndsWithoutItsWork) {
  rpc::Loop loop;
  auto quiet = std::make_unique<QuietThread>(loop);
  auto begun = std::make_shared<std::atomic<bool>>(false);
  kj::Promise<int> endless = quiet->run([begun]() -> std::optional<int> {
    begun->store(true);
    return std::nullopt;
  });
  EXPECT_EQ(loop.wait(quiet->run([begun]() -> std::optional<int> {
    return begun->load() ? std::optional<int>(1) : std::nullopt;
  })),
            1);
  quiet.reset();
  EXPECT_THROW(loop.wait(kj::mv(endless)), kj::Exception);
}

TEST(QuietThread, AnExceptionIsAFailure) {
  rpc::Loop loop;
  QuietThread quiet(loop);
  EXPECT_THROW(loop.wait(quiet.run([]() -> std::optional<int> { throw std::bad_alloc(); })),
               kj::Exception);
  EXPECT_EQ(loop.wait(quiet.run([]() -> std::optional<int> { return 1; })), 1);
}

}  // namespace
}  // namespace pesc::worker
