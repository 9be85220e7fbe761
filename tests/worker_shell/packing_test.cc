// What is taken for a result of an attempt that an earlier worker has prepared.
#include "runtime/worker/shell/packing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <ctime>
#include <fstream>

#include "blob/files.h"
#include "blob/hash.h"
#include "runtime/common/state_dir.h"
#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class Adopted : public ::testing::Test {
 protected:
  void SetUp() override {
    order_.paths.root = dir_.path() / "attempt";
    order_.paths.app = order_.paths.root + "/app";
    order_.paths.output = order_.paths.root + "/output";
    fs::create_directories(order_.paths.app);
    fs::create_directories(order_.paths.output);
    order_.adopted = true;
    order_.outbox_file = dir_.path() / "outbox";
    // It was started in the very moment in which its inputs had been placed.
    order_.exit.outcome.started_unix_ms = static_cast<int64_t>(::time(nullptr)) * 1'000;
    spec_.repetitions = 1;
  }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(order_.paths.app + "/" + name) << text;
  }
  void place(const std::string& name, const std::string& text) {
    write(name, text);
    absl::StatusOr<BlobRef> blob = blob::hash_file(order_.paths.app + "/" + name);
    ASSERT_TRUE(blob.ok()) << blob.status();
    spec_.files.push_back({name, FileKind::file, *blob, 0644});
  }
  PackedOutput pack() {
    order_.spec = std::make_shared<const JobSpec>(spec_);
    absl::StatusOr<PackedOutput> output = pack_attempt(order_);
    EXPECT_TRUE(output.ok()) << output.status();
    return output.ok() ? *std::move(output) : PackedOutput();
  }

  TemporaryDirectory dir_;
  JobSpec spec_;
  PackOrder order_;
};

TEST_F(Adopted, InputsAreNoResults) {
  place("program", "#!/bin/sh\n");
  EXPECT_THAT(pack().uncollected, IsEmpty());
  write("made.txt", "by the rank");
  EXPECT_THAT(pack().uncollected, UnorderedElementsAre("made.txt"));
  std::filesystem::create_directory(order_.paths.app + "/__pycache__");
  write("__pycache__/model.cpython-311.pyc", "x");
  EXPECT_THAT(pack().uncollected, UnorderedElementsAre("made.txt"));
}

TEST_F(Adopted, ACollectedInputComesBackWhenItWasChanged) {
  place("table.csv", "1,2\n");
  const Digest nothing = pack().blob.digest;
  spec_.collect = {"*.csv"};
  EXPECT_EQ(pack().blob.digest, nothing);
  write("table.csv", "3,4\n");
  EXPECT_NE(pack().blob.digest, nothing);
}

TEST(DiskFull, IsNotEveryLimit) {
  EXPECT_TRUE(is_disk_full(blob::errno_status(ENOSPC, "cannot write", "/x/y")));
  EXPECT_TRUE(is_disk_full(blob::errno_status(EDQUOT, "cannot write", "/x/y")));
  EXPECT_TRUE(is_disk_full(blob::errno_status(EROFS, "cannot write", "/x/y")));
  EXPECT_TRUE(is_disk_full(common::errno_status(ENOSPC, "make", "/x/y")));
  EXPECT_TRUE(is_disk_full(common::errno_status(EROFS, "make", "/x/y")));
  EXPECT_FALSE(is_disk_full(blob::errno_status(EMFILE, "cannot open", "/x/y")));
  EXPECT_FALSE(is_disk_full(blob::errno_status(EIO, "cannot read", "/x/y")));
  EXPECT_FALSE(is_disk_full(blob::errno_status(EACCES, "cannot read", "/x/y")));
  EXPECT_FALSE(is_disk_full(absl::OkStatus()));
}

TEST(DiskFull, IsWhatAProgramSaysThatFailed) {
  KeptExit exit;
  exit.outcome.reason = EndReason::exit_code;
  exit.outcome.duration_ms = 500'000;
  exit.standard_error = "head: write error: No space left on device\n";
  EXPECT_TRUE(died_of_a_full_disk(exit, {}));
  exit.outcome.reason = EndReason::succeeded;
  EXPECT_FALSE(died_of_a_full_disk(exit, {}));
  exit.outcome.reason = EndReason::exit_code;
  exit.standard_error = "no such file\n";
  EXPECT_FALSE(died_of_a_full_disk(exit, {}));
}

TEST(TakenPort, IsToldFromStandardErrorOfAShortRun) {
  KeptExit exit;
  exit.outcome.reason = EndReason::exit_code;
  exit.outcome.duration_ms = 500;
  exit.standard_error =
      "RuntimeError: The server socket has failed to listen (errno: 98 - "
      "Address already in use).\n";
  EXPECT_TRUE(died_of_a_taken_port(exit, {}));
  exit.outcome.duration_ms = 40'000;
  EXPECT_FALSE(died_of_a_taken_port(exit, {}));
  exit.outcome.duration_ms = 500;
  exit.standard_error = "Error: listen EADDRINUSE: :::23456\n";
  EXPECT_TRUE(died_of_a_taken_port(exit, {}));
  exit.standard_error = "Error: no such file\n";
  EXPECT_FALSE(died_of_a_taken_port(exit, {}));
  exit.outcome.reason = EndReason::cancelled;
  EXPECT_FALSE(died_of_a_taken_port(exit, {}));
}

}  // namespace
}  // namespace pesc::worker
