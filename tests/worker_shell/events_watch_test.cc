#include "runtime/worker/shell/events_watch.h"

#include <gtest/gtest.h>

#include <fstream>
#include <optional>

#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

class EventsWatchTest : public testing::Test {
 protected:
  ~EventsWatchTest() noexcept override {}
  void SetUp() override {
    auto watch = EventsWatch::open(
        loop_, {.start_after_ms = 0, .read_every_ms = 1},
        [this](const AttemptKey& key, double fraction, const std::string& text) {
          seen_ = {key, fraction, text};
          ++calls_;
          if (waiting_) waiting_->fulfill();
        },
        [this](const AttemptKey& key) {
          marked_.push_back(key);
          if (waiting_) waiting_->fulfill();
        });
    ASSERT_TRUE(watch.ok()) << watch.status();
    watch_ = *std::move(watch);
  }

  std::string make_file(const std::string& name) {
    const std::string path = (directory_.path() / name).string();
    write_file(path, "");
    return path;
  }
  static void append(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::app) << bytes;
  }
  // Until the handler is called, or (a generous guard against hanging) a minute is over.
  void next() {
    auto paf = kj::newPromiseAndFulfiller<void>();
    waiting_ = kj::mv(paf.fulfiller);
    loop_.wait(loop_.timer().timeoutAfter(60 * kj::SECONDS, kj::mv(paf.promise)));
    waiting_ = nullptr;
  }

  struct Seen {
    AttemptKey key;
    double fraction = 0;
    std::string text;
  };
  rpc::Loop loop_;
  TemporaryDirectory directory_;
  std::unique_ptr<EventsWatch> watch_;
  Seen seen_;
  int calls_ = 0;
  std::vector<AttemptKey> marked_;
  kj::Own<kj::PromiseFulfiller<void>> waiting_;
};

TEST_F(EventsWatchTest, SeesWhatWasWrittenBeforeAndAfter) {
  const std::string path = make_file("events");
  append(path, "progress 0.25 fitting model 3\n");
  watch_->add(key_of(3), path);
  next();
  EXPECT_EQ(seen_.key, key_of(3));
  EXPECT_DOUBLE_EQ(seen_.fraction, 0.25);
  EXPECT_EQ(seen_.text, "fitting model 3");
  append(path, "progress 0.5\n");
  next();
  EXPECT_DOUBLE_EQ(seen_.fraction, 0.5);
}

TEST_F(EventsWatchTest, TakesTheNewestOfManyAndWaitsForTheEndOfALine) {
  const std::string path = make_file("events");
  append(path, "progress 0.1\nnonsense\nmetric price 3\nprogress 0.2\nprogress 0.9 half a li");
  watch_->add(key_of(0), path);
  next();
  EXPECT_DOUBLE_EQ(seen_.fraction, 0.2);
  EXPECT_EQ(calls_, 1);
  append(path, "ne\n");
  next();
  EXPECT_DOUBLE_EQ(seen_.fraction, 0.9);
  EXPECT_EQ(seen_.text, "half a line");
}

TEST_F(EventsWatchTest, AFloodAndAnEndlessLineCostABoundedAmount) {
  const std::string path = make_file("events");
  std::string flood(5 << 20, 'x');
  flood += "\nprogress 0.75 after the flood\n";
  append(path, flood);
  watch_->add(key_of(0), path);
  next();
  EXPECT_DOUBLE_EQ(seen_.fraction, 0.75);
  append(path, std::string(100'000, 'y'));
  append(path, "progress 0.8\nprogress 0.81\n");  // the first ends the endless line
  next();
  EXPECT_DOUBLE_EQ(seen_.fraction, 0.81);
}

TEST_F(EventsWatchTest, FollowsSeveralFilesAndForgetsThem) {
  const std::string one = make_file("one"), two = make_file("two");
  watch_->add(key_of(1), one);
  watch_->add(key_of(2), two);
  append(one, "progress 0.1\n");
  next();
  EXPECT_EQ(seen_.key, key_of(1));
  watch_->remove(key_of(1));
  append(one, "progress 0.2\n");
  append(two, "progress 0.3\n");
  next();
  EXPECT_EQ(seen_.key, key_of(2));
  EXPECT_EQ(calls_, 2);
  EXPECT_EQ(watch_->watched(), 1u);
  watch_->remove(key_of(2));
  EXPECT_EQ(watch_->watched(), 0u);
}

TEST_F(EventsWatchTest, AFileThatIsBegunAnewIsReadAgain) {
  const std::string path = make_file("events");
  append(path, "progress 0.6 a long line at first\n");
  watch_->add(key_of(0), path);
  next();
  write_file(path, "progress 0.1\n");
  next();
  EXPECT_DOUBLE_EQ(seen_.fraction, 0.1);
}

TEST_F(EventsWatchTest, HearsOfCheckpoints) {
  const std::string path = make_file("events");
  watch_->add(key_of(3), path);
  append(path, "checkpoint\n");
  next();
  EXPECT_EQ(marked_, std::vector<AttemptKey>{key_of(3)});
}

TEST_F(EventsWatchTest, ReadsTheRestOfOneThatWasNeverWatched) {
  const std::string path = make_file("events");
  append(path, "progress 0.5\ncheckpoint\nche");
  watch_->read_rest(key_of(3));
  EXPECT_TRUE(marked_.empty()) << "nobody has added it";
  watch_->add(key_of(3), path);
  watch_->read_rest(key_of(3));
  EXPECT_EQ(marked_.size(), 1u);
  EXPECT_EQ(seen_.fraction, 0.5);
}

TEST_F(EventsWatchTest, AFileTellsWhetherItEverHadACheckpoint) {
  const std::string path = make_file("events");
  append(path, "progress 0.5\ncheckpoint");
  EXPECT_FALSE(has_checkpoint_event(path)) << "the line is not whole";
  append(path, "\nprogress 0.6\n");
  EXPECT_TRUE(has_checkpoint_event(path));
  EXPECT_FALSE(has_checkpoint_event(path + "-missing"));
}

}  // namespace
}  // namespace pesc::worker
