// A keeper with its client, and what came of it.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/worker/keeper_client/keeper_client.h"

namespace pesc::worker {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "pesc-keeper-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void write_file(const std::filesystem::path& path, const std::string& text,
                       mode_t mode = 0644) {
  std::ofstream(path, std::ios::binary) << text;
  ::chmod(path.c_str(), mode);
}

// The n-th field of /proc/PID/stat after the name: 0 is the state, 1 the parent.
inline std::string stat_field(pid_t pid, int index) {
  std::string text = read_file("/proc/" + std::to_string(pid) + "/stat");
  size_t close = text.rfind(')');
  if (close == text.npos) return {};
  std::istringstream fields(text.substr(close + 1));
  std::string field;
  for (int i = 0; i <= index; ++i) fields >> field;
  return field;
}
inline pid_t parent_of(pid_t pid) {
  std::string parent = stat_field(pid, 1);
  return parent.empty() ? 0 : std::stoi(parent);
}
inline bool is_gone(pid_t pid) {
  // Somebody else's zombie is gone for all purposes.
  return (::kill(pid, 0) != 0 && errno == ESRCH) || stat_field(pid, 0) == "Z";
}

// Ends when the process does.
class ProcessWatch {
 public:
  explicit ProcessWatch(pid_t pid) : fd_(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))) {}
  ~ProcessWatch() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool wait() const {
    if (fd_ < 0) return true;
    pollfd entry{fd_, POLLIN, 0};
    return ::poll(&entry, 1, 60'000) == 1;
  }

 private:
  int fd_;
};

inline std::string own_program() { return std::filesystem::read_symlink("/proc/self/exe"); }

// One worker's view of its keeper.
class Kept {
 public:
  explicit Kept(const std::filesystem::path& state, bool die_with_parent = true,
                std::filesystem::path program = {}, uint64_t detached_limit_ms = 0,
                containment::Mode mode = containment::Mode::automatic) {
    KeeperEvents events;
    events.on_welcome = [this](std::vector<KeptAttempt> found) { welcome = std::move(found); };
    events.on_containment = [this](std::string description, std::string lacking) {
      contained_by = std::move(description);
      not_contained_why = std::move(lacking);
    };
    events.on_started = [this](AttemptKey key, uint32_t pid, int64_t, bool binds) {
      started[key] = static_cast<pid_t>(pid);
      binds_done[key] = binds;
    };
    events.on_exited = [this](KeptExit exit) { exits[exit.key] = std::move(exit); };
    events.on_lost = [this](absl::Status status) { lost = std::move(status); };
    auto client = KeeperClient::open(
        io, {state / "keeper.sock", program, die_with_parent, detached_limit_ms, mode}, events);
    EXPECT_TRUE(client.ok()) << client.status();
    if (client.ok()) keeper = std::move(*client);
  }

  // Runs the loop until it is so; fails when it does not come to be.
  void until(const std::function<bool()>& so) {
    asio::steady_timer bound(io, std::chrono::seconds(60));
    // The handler of a timer that is gone runs in a later call.
    const auto late = std::make_shared<bool>(false);
    bound.async_wait([late](std::error_code error) { *late = !error; });
    while (!so() && !*late) io.run_one();
    ASSERT_TRUE(so()) << "did not happen";
  }
  pid_t wait_started(const AttemptKey& key) {
    until([&] { return started.contains(key) || exits.contains(key); });
    return started[key];
  }
  // Waits for an actor's word that it is ready.
  pid_t wait_ready(const AttemptKey& key, const std::string& fifo) {
    wait_started(key);
    pid_t pid = 0;
    if (!exits.contains(key)) std::ifstream(fifo) >> pid;
    return pid;
  }
  KeptExit wait_exit(const AttemptKey& key) {
    until([&] { return exits.contains(key); });
    return exits[key];
  }
  // Everything that was asked before has been done by the keeper.
  KeeperClient::Output read_output(const AttemptKey& key, uint8_t stream = 1, uint64_t offset = 0) {
    std::optional<KeeperClient::Output> result;
    keeper->read_output(key, stream, offset, 1 << 20, [&](auto output) { result = output; });
    until([&] { return result.has_value(); });
    return result.value_or(KeeperClient::Output{});
  }

  asio::io_context io;
  std::unique_ptr<KeeperClient> keeper;
  std::optional<std::vector<KeptAttempt>> welcome;
  std::map<AttemptKey, pid_t> started;
  std::map<AttemptKey, bool> binds_done;
  std::map<AttemptKey, KeptExit> exits;
  std::optional<absl::Status> lost;
  std::string contained_by, not_contained_why;
};

class KeeperTest : public ::testing::Test {
 protected:
  LaunchRequest request(std::vector<std::string> argv, uint32_t rank = 0) {
    LaunchRequest request;
    request.key = {{42}, rank, 1};
    request.argv = std::move(argv);
    request.environment = {"PATH=/usr/bin:/bin", "ANSWER=forty two"};
    request.search_path = "/usr/local/bin:/usr/bin:/bin";
    request.working_directory = directory.path();
    request.spill_directory = directory.path();
    request.output_limit_bytes = 1 << 30;
    request.grace_ms = 60'000;
    request.lease = std::string("lease\0bytes", 11);
    return request;
  }
  LaunchRequest act(const std::string& name, std::vector<std::string> arguments = {},
                    uint32_t rank = 0) {
    arguments.insert(arguments.begin(), own_program());
    LaunchRequest result = request(std::move(arguments), rank);
    result.environment.push_back("PESC_TEST_ACT=" + name);
    return result;
  }
  KeptExit run(const LaunchRequest& request) {
    Kept kept(directory.path());
    kept.keeper->start(request);
    return kept.wait_exit(request.key);
  }
  // A FIFO through which an actor says that it is ready: reading it waits for that.
  std::string make_fifo(const std::string& name = "ready") {
    std::string path = directory.path() / name;
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    return path;
  }
  pid_t wait_ready(const std::string& fifo) {
    pid_t pid = 0;
    std::ifstream(fifo) >> pid;
    return pid;
  }

  TemporaryDirectory directory;
};

}  // namespace pesc::worker
