#include "runtime/worker/shell/events_watch.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string_view>

#include "asio/post.hpp"
#include "blob/files.h"

namespace pesc::worker {
namespace {

constexpr uint64_t kReadBytes = 1 << 20;
constexpr size_t kLineBytes = 4096;
constexpr size_t kTextBytes = 1024;

}  // namespace

EventsWatch::EventsWatch(rpc::Loop& loop, Options options, Handler handler,
                         CheckpointHandler checkpoint)
    : loop_(loop),
      options_(options),
      handler_(std::move(handler)),
      checkpoint_(std::move(checkpoint)),
      inotify_(loop.io()) {}

EventsWatch::~EventsWatch() { *alive_ = false; }

absl::StatusOr<std::unique_ptr<EventsWatch>> EventsWatch::open(rpc::Loop& loop, Options options,
                                                               Handler handler,
                                                               CheckpointHandler checkpoint) {
  const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0) {
    return absl::ResourceExhaustedError(
        "cannot watch files: too many inotify instances; raise fs.inotify.max_user_instances");
  }
  std::unique_ptr<EventsWatch> watch(
      new EventsWatch(loop, options, std::move(handler), std::move(checkpoint)));
  watch->inotify_.assign(fd);
  watch->listen();
  return watch;
}

void EventsWatch::listen() {
  inotify_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [this, alive = alive_](const asio::error_code& error) {
                        if (error || !*alive) return;
                        on_readable();
                        listen();
                      });
}

void EventsWatch::add(const AttemptKey& key, const std::string& path) {
  File& file = files_[key];
  file.path = path;
  waiting_.emplace_back(
      loop_.timer().now() + static_cast<int64_t>(options_.start_after_ms) * kj::MILLISECONDS, key);
  plan_begin();
}

void EventsWatch::remove(const AttemptKey& key) {
  auto it = files_.find(key);
  if (it == files_.end()) return;
  if (it->second.watch >= 0) {
    ::inotify_rm_watch(inotify_.native_handle(), it->second.watch);
    by_watch_.erase(it->second.watch);
  }
  dirty_.erase(key);
  files_.erase(it);  // in waiting_ it is found missing when its time comes
}

void EventsWatch::read_rest(const AttemptKey& key) {
  auto it = files_.find(key);
  if (it != files_.end()) read_file(key, it->second);
}

// The timers' promises are replaced by handlers that Asio calls, never from within themselves.
void EventsWatch::plan_begin() {
  // Nothing wakes up for ranks that have ended meanwhile, as most short ones have.
  while (!begin_planned_ && !waiting_.empty() && !files_.contains(waiting_.front().second)) {
    waiting_.pop_front();
  }
  if (begin_planned_ || waiting_.empty()) return;
  begin_planned_ = true;
  begin_timer_ = loop_.timer()
                     .atTime(waiting_.front().first)
                     .then([this] {
                       asio::post(loop_.io(), [this, alive = alive_] {
                         if (*alive) begin_watching();
                       });
                     })
                     .eagerlyEvaluate(nullptr);
}

void EventsWatch::begin_watching() {
  begin_planned_ = false;
  const kj::TimePoint now = loop_.timer().now();
  while (!waiting_.empty() && waiting_.front().first <= now) {
    const AttemptKey key = waiting_.front().second;
    waiting_.pop_front();
    auto it = files_.find(key);
    if (it == files_.end() || it->second.watch >= 0) continue;
    File& file = it->second;
    file.watch = ::inotify_add_watch(inotify_.native_handle(), file.path.c_str(),
                                     IN_MODIFY | IN_DONT_FOLLOW);
    if (file.watch < 0) continue;  // gone already, or no watch to be had: no progress then
    by_watch_[file.watch] = key;
    dirty_.insert(key);  // what was written before
  }
  plan_begin();
  if (!dirty_.empty()) plan_read();
}

void EventsWatch::on_readable() {
  alignas(inotify_event) char buffer[16 * 1024];
  const ssize_t got = ::read(inotify_.native_handle(), buffer, sizeof buffer);
  for (ssize_t at = 0; at < got;) {
    const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
    at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    if ((event->mask & IN_Q_OVERFLOW) != 0) {
      for (const auto& [watch, key] : by_watch_) dirty_.insert(key);
    }
    auto it = by_watch_.find(event->wd);
    if (it == by_watch_.end()) continue;
    if ((event->mask & IN_IGNORED) != 0) {  // the file is deleted
      by_watch_.erase(it);
      continue;
    }
    dirty_.insert(it->second);
  }
  if (!dirty_.empty()) plan_read();
}

void EventsWatch::plan_read() {
  if (read_planned_) return;
  read_planned_ = true;
  const auto due = last_read_ + static_cast<int64_t>(options_.read_every_ms) * kj::MILLISECONDS;
  read_timer_ = loop_.timer()
                    .atTime(due)
                    .then([this] {
                      asio::post(loop_.io(), [this, alive = alive_] {
                        if (*alive) read_dirty();
                      });
                    })
                    .eagerlyEvaluate(nullptr);
}

void EventsWatch::read_dirty() {
  read_planned_ = false;
  last_read_ = loop_.timer().now();
  const std::set<AttemptKey> dirty = std::exchange(dirty_, {});
  for (const AttemptKey& key : dirty) {
    auto it = files_.find(key);
    if (it != files_.end()) read_file(key, it->second);
  }
  if (!dirty_.empty()) plan_read();
}

void EventsWatch::read_file(const AttemptKey& key, File& file) {
  if (!file.fd.valid()) {
    file.fd.reset(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  }
  struct stat info {};
  if (!file.fd.valid() || ::fstat(file.fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return;
  }
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  if (size < file.offset) {  // the program began it anew
    file.offset = 0;
    file.partial.clear();
    file.skip_line = false;
  }
  if (size - file.offset > kReadBytes) {  // only the newest counts
    file.offset = size - kReadBytes;
    file.partial.clear();
    file.skip_line = true;
  }
  std::string bytes(size - file.offset, '\0');
  const ssize_t got =
      ::pread(file.fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(file.offset));
  if (got <= 0) return;
  bytes.resize(static_cast<size_t>(got));
  file.offset += bytes.size();

  std::optional<RankEvent> newest;
  bool checkpoint = false;
  size_t at = 0;
  for (size_t end; (end = bytes.find('\n', at)) != std::string::npos; at = end + 1) {
    std::string_view line = std::string_view(bytes).substr(at, end - at);
    std::string joined;
    if (!file.partial.empty()) {
      joined = std::move(file.partial) + std::string(line);
      file.partial.clear();
      line = joined;
    }
    if (std::exchange(file.skip_line, false) || line.size() > kLineBytes) continue;
    std::optional<RankEvent> event = parse_event_line(line);
    if (!event) continue;
    checkpoint = checkpoint || event->kind == RankEvent::Kind::checkpoint;
    if (event->kind == RankEvent::Kind::progress) newest = std::move(event);
  }
  file.partial.append(bytes, at, std::string::npos);
  if (file.partial.size() > kLineBytes) {
    file.partial.clear();
    file.skip_line = true;
  }
  if (newest) {
    if (newest->text.size() > kTextBytes) newest->text.resize(kTextBytes);
    handler_(key, newest->value, newest->text);
  }
  if (checkpoint && checkpoint_) checkpoint_(key);
}

bool has_checkpoint_event(const std::string& path) {
  constexpr uint64_t kTailBytes = 4 << 20;
  common::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  const uint64_t size = static_cast<uint64_t>(info.st_size);
  auto bytes =
      blob::pread_up_to(fd.get(), size > kTailBytes ? size - kTailBytes : 0, kTailBytes, path);
  if (!bytes.ok()) return false;
  std::string_view rest(*bytes);
  for (size_t end; (end = rest.find('\n')) != rest.npos; rest.remove_prefix(end + 1)) {
    const auto event = parse_event_line(rest.substr(0, end));
    if (event && event->kind == RankEvent::Kind::checkpoint) return true;
  }
  return false;
}

}  // namespace pesc::worker
