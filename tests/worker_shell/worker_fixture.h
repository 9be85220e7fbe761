// A whole worker, with its real keeper, against a scripted coordinator, in one process.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "blob/pack.h"
#include "runtime/worker/shell/worker.h"
#include "tests/worker_shell/fake_coordinator.h"
#include "tests/worker_shell/support.h"

namespace pesc::worker {

class WorkerTest : public testing::Test {
 protected:
  void TearDown() override {
    if (worker_ != nullptr) loop_.wait(worker_->shutdown());
    worker_.reset();
  }

  void open(Options options = {}) {
    if (options.state_dir.empty()) options.state_dir = state_.path() / "worker";
    if (options.cpus_milli == 0) options.cpus_milli = 2000;
    options.end_keeper_on_shutdown = true;
    auto worker =
        Worker::open(loop_, options, [this]() -> kj::Promise<protocol::WorkerSession::Client> {
          ++dials_;
          if (refuse_dials_ > 0) {
            --refuse_dials_;
            return rpc::to_exception(absl::UnavailableError("nobody answers"));
          }
          return fake_.session();
        });
    ASSERT_TRUE(worker.ok()) << worker.status();
    worker_ = *std::move(worker);
    fake_.wait_until([&] { return fake_.attached > 0; });
  }

  JobSpec script(const std::string& text) {
    JobSpec spec;
    spec.name = "test";
    spec.program = "./run";
    spec.repetitions = 100;
    const std::string bytes = "#!/bin/sh\n" + text;
    fake_.add_blob(bytes);
    spec.files = {{"run", FileKind::file, blob_of(bytes), 0755}};
    spec.output_limit_bytes = 1 << 20;
    spec.grace_ms = 5'000;
    return spec;
  }

  FileRef input(const std::string& path, const std::string& bytes, FileKind kind) {
    fake_.add_blob(bytes);
    return {path, kind, blob_of(bytes), 0644};
  }

  std::filesystem::path unpacked(const std::string& output) {
    const std::filesystem::path target = state_.path() / ("unpacked-" + std::to_string(next_++));
    std::filesystem::create_directory(target);
    bool given = false;
    absl::Status status = blob::unpack(
        [&]() -> absl::StatusOr<std::string> {
          return std::exchange(given, true) ? std::string() : output;
        },
        target);
    EXPECT_TRUE(status.ok()) << status;
    return target;
  }

  size_t attempt_directories() const {
    size_t count = 0;
    for (const auto& entry :
         std::filesystem::directory_iterator(state_.path() / "worker" / "attempts")) {
      (void)entry;
      ++count;
    }
    return count;
  }

  TemporaryDirectory state_;
  rpc::Loop loop_;
  FakeCoordinator fake_{loop_};
  std::unique_ptr<Worker> worker_;
  int dials_ = 0, refuse_dials_ = 0, next_ = 0;
};

}  // namespace pesc::worker
