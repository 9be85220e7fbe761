#include "rpc/loop.h"

#include <gtest/gtest.h>
#include <kj/debug.h>

#include <asio/post.hpp>
#include <atomic>
#include <future>
#include <thread>

namespace pesc::rpc {
namespace {

TEST(Loop, RunsUntilStopAndMayRunAgain) {
  Loop loop;
  int posted = 0;
  loop.post([&] { ++posted; });
  loop.stop();
  loop.run();
  EXPECT_EQ(posted, 1);
  loop.post([&] {
    ++posted;
    loop.stop();
  });
  loop.run();
  EXPECT_EQ(posted, 2);
}

TEST(Loop, StopBeforeRunIsNotLost) {
  Loop loop;
  loop.stop();
  loop.wait(kj::evalLater([] {}));
  loop.wait(loop.timer().afterDelay(1 * kj::MILLISECONDS));  // the stop is handled in here
  loop.run();
}

TEST(Loop, TakesWorkFromOtherThreads) {
  Loop loop;
  std::thread::id seen;
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) loop.post([] {});
    loop.post([&] {
      seen = std::this_thread::get_id();
      loop.stop();
    });
  });
  loop.run();
  other.join();
  EXPECT_EQ(seen, std::this_thread::get_id());
}

TEST(Loop, PromisesAndHandlersShareTheThreadFairly) {
  Loop loop;
  uint64_t handlers = 0, events = 0;
  bool over = false;
  std::function<void()> repost = [&] {
    if (over) return;
    ++handlers;
    asio::post(loop.io(), repost);
  };
  std::function<kj::Promise<void>()> again = [&]() -> kj::Promise<void> {
    if (over) return kj::READY_NOW;
    if (++events > 20'000 && handlers > 1'000) {
      over = true;
      loop.stop();
    }
    return kj::evalLater([&] { return again(); });
  };
  asio::post(loop.io(), repost);
  loop.detach(again());
  loop.run();
  EXPECT_GT(handlers, 1'000u);
}

TEST(Loop, QuietIsWhenAllElseIsDone) {
  Loop loop;
  int before = 0;
  auto quiet = loop.when_quiet().then([&] { EXPECT_EQ(before, 10); }).eagerlyEvaluate(nullptr);
  for (int i = 0; i < 10; ++i) loop.detach(kj::evalLater([&] { ++before; }));
  loop.wait(kj::mv(quiet));
  loop.wait(loop.when_quiet());
}

// Ten thousand connections always have something to say: what waits for a quiet moment, as all
// writes do, must not wait for ever.
TEST(Loop, ALoopThatIsNeverQuietGoesOnAllTheSame) {
  Loop loop;
  bool over = false;
  std::function<void()> repost = [&] {
    if (!over) asio::post(loop.io(), repost);
  };
  std::function<kj::Promise<void>()> again = [&]() -> kj::Promise<void> {
    if (over) return kj::READY_NOW;
    return kj::evalLater([&] { return again(); });
  };
  repost();
  auto busy = again().eagerlyEvaluate(nullptr);
  for (int i = 0; i < 3; ++i) loop.wait(loop.when_quiet());
  over = true;
  loop.wait(kj::mv(busy));
}

TEST(Loop, TimersFireInOrder) {
  Loop loop;
  std::vector<int> order;
  auto late = loop.timer().afterDelay(3 * kj::MILLISECONDS).then([&] { order.push_back(2); });
  auto soon = loop.timer()
                  .afterDelay(1 * kj::MILLISECONDS)
                  .then([&] { order.push_back(1); })
                  .eagerlyEvaluate(nullptr);
  auto before = loop.timer().now();
  loop.wait(kj::mv(late));
  loop.wait(kj::mv(soon));
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_GE((loop.timer().now() - before) / kj::MILLISECONDS, 3);
}

TEST(Loop, TimerIsTheBootClock) {
  Loop loop;
  timespec ts{};
  clock_gettime(CLOCK_BOOTTIME, &ts);
  int64_t seconds = (loop.timer().now() - kj::origin<kj::TimePoint>()) / kj::SECONDS;
  EXPECT_LE(seconds - ts.tv_sec, 1);
  EXPECT_GE(seconds - ts.tv_sec, 0);
}

TEST(Loop, AHandlerThatThrowsEndsNothing) {
  Loop loop;
  loop.post([] { throw std::runtime_error("a test's own failure"); });
  loop.post([] { KJ_FAIL_REQUIRE("a test's own failure"); });
  loop.stop();
  loop.run();
}

TEST(Loop, DetachedFailureIsReported) {
  Loop loop;
  absl::Status seen;
  loop.detach(kj::Promise<void>(to_exception(absl::NotFoundError("no such job"))),
              [&](absl::Status status) {
                seen = status;
                loop.stop();
              });
  loop.run();
  EXPECT_EQ(seen, absl::NotFoundError("no such job"));
}

TEST(Loop, BlockingWorkReturnsToTheLoop) {
  Loop loop;
  std::atomic<int> worked{0};
  int done = 0;
  std::thread::id worker;
  for (int i = 0; i < 50; ++i) {
    loop.run_blocking(
        [&] {
          if (++worked == 1) worker = std::this_thread::get_id();
        },
        [&] {
          if (++done == 50) loop.stop();
        });
  }
  loop.run_blocking([] { throw std::runtime_error("a test's own failure"); }, {});
  loop.run();
  EXPECT_EQ(worked, 50);
  EXPECT_NE(worker, std::this_thread::get_id());
}

TEST(Loop, TwoBlockingWorksRunAtOnce) {
  Loop loop;
  std::promise<void> first, second;
  int done = 0;
  auto finish = [&] {
    if (++done == 2) loop.stop();
  };
  loop.run_blocking(
      [&] {
        first.set_value();
        second.get_future().wait();
      },
      finish);
  loop.run_blocking(
      [&] {
        first.get_future().wait();
        second.set_value();
      },
      finish);
  loop.run();
  EXPECT_EQ(done, 2);
}

// What is still waiting when a loop goes is destroyed on its thread, with KJ's loop alive.
TEST(Loop, DestructionDropsWhatWaits) {
  auto token = std::make_shared<int>(0);
  {
    Loop loop;
    auto paf = kj::newPromiseAndFulfiller<void>();
    loop.detach(paf.promise.attach(kj::heap(token)));
    loop.post([token, fulfiller = std::make_shared<kj::Own<kj::PromiseFulfiller<void>>>(
                          kj::mv(paf.fulfiller))] { FAIL() << "must not run"; });
    loop.run_blocking([token] {}, [token] { FAIL() << "must not run"; });
    loop.detach(kj::Promise<void>(kj::NEVER_DONE)
                    .attach(kj::heap(token), kj::defer([&loop] {
                              loop.detach(kj::READY_NOW);  // from a destructor, while the loop goes
                            })));
    kj::Promise<void>(kj::NEVER_DONE).attach(kj::heap(token)).detach([](kj::Exception&&) {});
  }
  EXPECT_EQ(token.use_count(), 1);
}

TEST(Loop, EachThreadHasItsOwn) {
  Loop mine;
  std::thread other([&mine] {
    Loop theirs;
    theirs.post([&] {
      mine.post([&mine] { mine.stop(); });
      theirs.stop();
    });
    theirs.run();
  });
  mine.run();
  other.join();
}

TEST(Loop, ExecutorWakesIt) {
  Loop loop;
  const kj::Executor& executor = kj::getCurrentThreadExecutor();
  std::thread other([&] { executor.executeSync([&] { loop.stop(); }); });
  loop.run();
  other.join();
}

TEST(Errors, CodesSurviveTheTrip) {
  for (auto code : {absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound,
                    absl::StatusCode::kUnauthenticated, absl::StatusCode::kPermissionDenied,
                    absl::StatusCode::kFailedPrecondition, absl::StatusCode::kResourceExhausted,
                    absl::StatusCode::kUnavailable, absl::StatusCode::kAlreadyExists,
                    absl::StatusCode::kAborted, absl::StatusCode::kDataLoss,
                    absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kOutOfRange,
                    absl::StatusCode::kInternal, absl::StatusCode::kCancelled}) {
    absl::Status status(code, "rank 7: what \"happened\"");
    kj::Exception exception = to_exception(status);
    EXPECT_EQ(to_status(exception), status);
    kj::Exception remote(exception.getType(), "x", 1,
                         kj::str("remote exception: ", exception.getDescription()));
    EXPECT_EQ(to_status(remote), status);
  }
}

TEST(Errors, KjTypesBecomeCodes) {
  EXPECT_EQ(to_status(KJ_EXCEPTION(DISCONNECTED, "gone")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(to_status(KJ_EXCEPTION(OVERLOADED, "busy")).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(to_status(KJ_EXCEPTION(FAILED, "odd")).code(), absl::StatusCode::kInternal);
  absl::Status old = to_status(KJ_EXCEPTION(UNIMPLEMENTED, "remote exception: no method"));
  EXPECT_EQ(old.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(std::string(old.message()).find("versions differ"), std::string::npos);
  EXPECT_EQ(std::string(old.message()).find("remote exception"), std::string::npos);
}

}  // namespace
}  // namespace pesc::rpc
