// Told at once, instead of looking again and again: logins as their files change, typing and mouse
// movements as they are read, the pause file as it comes and goes. On the loop's thread.
#pragma once

#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/worker/owner/policy.h"

namespace pesc::worker::owner {

class Watch {
 public:
  // `changed`: something may be another now.
  Watch(asio::io_context& io, std::filesystem::path root, std::filesystem::path pause_file,
        std::function<void()> changed);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // False: this system gives no notices; then looking again has to do.
  bool works() const { return inotify_.is_open(); }
  // Notices of everything but the pause file.
  void watch_people();
  // Before each look: takes up what has appeared, and is told again of the next input, but no more
  // than once for each look.
  void renew(const std::vector<Presence>& people);

  // When a keyboard or mouse was used last, 0: not yet; nothing: that cannot be seen here.
  std::optional<int64_t> input_unix_ms() const { return input_unix_ms_; }
  // What is known here of their terminals goes into it.
  void sharpen(std::vector<Presence>& people, int64_t now_unix_ms) const;

 private:
  enum class Kind : uint8_t { logins, sessions, pause, devices, input, terminal };
  struct Target {
    Kind kind = Kind::logins;
    std::string name;  // of the entry that matters; of a terminal: its own. Empty: any
  };
  int add(const std::filesystem::path& path, uint32_t mask, Kind kind, std::string name = {});
  void listen();
  void read_notices();
  bool noticed(int watch, uint32_t mask, std::string_view name);
  void watch_inputs();
  bool has_keys(const std::string& device) const;

  const std::filesystem::path root_, pause_file_;
  const std::function<void()> changed_;
  asio::posix::stream_descriptor inotify_;
  std::map<int, Target> targets_;
  std::set<std::string> armed_;  // terminals and input devices that will tell of the next input
  std::set<std::string> inputs_;
  bool people_ = false, sessions_ = false, utmp_ = false;
  std::optional<int64_t> input_unix_ms_;
  std::map<std::string, int64_t> typed_unix_ms_;  // by terminal
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

int64_t unix_ms();

}  // namespace pesc::worker::owner
