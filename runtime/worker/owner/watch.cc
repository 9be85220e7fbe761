#include "runtime/worker/owner/watch.h"

#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "runtime/worker/owner/probes.h"
#include "runtime/worker/owner/read_text.h"

namespace pesc::worker::owner {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kEntries = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO;
// Somebody who moves a mouse makes a thousand events a second: one is enough until the next look.
constexpr uint32_t kNextInput = IN_ACCESS | IN_ONESHOT;

}  // namespace

int64_t unix_ms() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}

Watch::Watch(asio::io_context& io, fs::path root, fs::path pause_file,
             std::function<void()> changed)
    : root_(std::move(root)),
      pause_file_(std::move(pause_file)),
      changed_(std::move(changed)),
      inotify_(io) {
  const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0) return;
  inotify_.assign(fd);
  listen();
  if (!pause_file_.empty()) {
    add(pause_file_.parent_path(), kEntries, Kind::pause, pause_file_.filename());
  }
}

Watch::~Watch() { *alive_ = false; }

int Watch::add(const fs::path& path, uint32_t mask, Kind kind, std::string name) {
  if (!works()) return -1;
  // A directory may be watched already, for another of its entries.
  const int watch = ::inotify_add_watch(inotify_.native_handle(), path.c_str(), mask | IN_MASK_ADD);
  if (watch < 0) return watch;
  const auto known = targets_.find(watch);
  if (known == targets_.end()) {
    targets_[watch] = {kind, std::move(name)};
  } else if (known->second.name != name) {
    known->second.name.clear();
  }
  return watch;
}

void Watch::watch_people() {
  people_ = true;
  add(root_ / "run", kEntries, Kind::logins, "utmp");
  add(root_ / "dev/pts", IN_CREATE | IN_DELETE, Kind::devices);
  add(root_ / "dev/input", IN_CREATE | IN_DELETE | IN_ATTRIB, Kind::devices);
  watch_inputs();
  renew({});
}

void Watch::renew(const std::vector<Presence>& people) {
  if (!people_) return;
  if (!utmp_) utmp_ = add(utmp_path(root_), IN_MODIFY | IN_DELETE_SELF, Kind::logins) >= 0;
  if (!sessions_) {
    sessions_ = add(root_ / "run/systemd/sessions", kEntries | IN_CLOSE_WRITE, Kind::sessions) >= 0;
  }
  for (const std::string& device : inputs_) {
    if (armed_.contains(device)) continue;
    if (add(root_ / "dev/input" / device, kNextInput, Kind::input, device) >= 0) {
      armed_.insert(device);
    }
  }
  for (const Presence& one : people) {
    const bool terminal = one.place.starts_with("tty") || one.place.starts_with("pts/");
    if (!terminal || armed_.contains(one.place)) continue;
    if (add(root_ / "dev" / one.place, kNextInput, Kind::terminal, one.place) >= 0) {
      armed_.insert(one.place);
    }
  }
}

// Lids, headphone sockets and accelerometers are nobody's hands.
bool Watch::has_keys(const std::string& device) const {
  const auto text = read_text(root_ / "sys/class/input" / device / "device/capabilities/key");
  return !text || text->find_first_of("123456789abcdef") != text->npos;
}

void Watch::watch_inputs() {
  inputs_.clear();
  bool refused = false;
  std::error_code error;
  for (fs::directory_iterator it(root_ / "dev/input", error), end; !error && it != end;
       it.increment(error)) {
    std::string name = it->path().filename().string();
    if (!name.starts_with("event") || !has_keys(name)) continue;
    if (::access(it->path().c_str(), R_OK) != 0) {
      refused = true;
    } else {
      inputs_.insert(std::move(name));
    }
  }
  // With a part of them unseen, silence would say nothing.
  if (refused || inputs_.empty() || !works()) {
    input_unix_ms_.reset();
  } else if (!input_unix_ms_) {
    input_unix_ms_ = 0;
  }
}

void Watch::sharpen(std::vector<Presence>& people, int64_t now_unix_ms) const {
  for (Presence& one : people) {
    const auto typed = typed_unix_ms_.find(one.place);
    if (typed == typed_unix_ms_.end()) continue;
    const auto idle = static_cast<uint64_t>(std::max<int64_t>(now_unix_ms - typed->second, 0));
    one.idle_ms = std::min(one.idle_ms, idle);
  }
}

void Watch::listen() {
  inotify_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [this, alive = alive_](const asio::error_code& error) {
                        if (error || !*alive) return;
                        read_notices();
                        if (*alive) listen();
                      });
}

void Watch::read_notices() {
  alignas(inotify_event) char buffer[16 * 1024];
  bool changed = false;
  ssize_t got = 0;
  while ((got = ::read(inotify_.native_handle(), buffer, sizeof buffer)) > 0) {
    for (ssize_t at = 0; at < got;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer + at);
      at += static_cast<ssize_t>(sizeof *event + event->len);
      const std::string_view name = event->len > 0 ? event->name : "";
      changed = noticed(event->wd, event->mask, name) || changed;
    }
  }
  if (changed) changed_();
}

bool Watch::noticed(int watch, uint32_t mask, std::string_view name) {
  if ((mask & IN_Q_OVERFLOW) != 0) return true;
  const auto it = targets_.find(watch);
  if (it == targets_.end()) return false;
  const Target target = it->second;
  if ((mask & IN_IGNORED) != 0) {  // told once, or gone: taken up again at the next look
    targets_.erase(it);
    armed_.erase(target.name);
    if (target.kind == Kind::logins) utmp_ = false;
    if (target.kind == Kind::sessions) sessions_ = false;
    return target.kind == Kind::logins || target.kind == Kind::sessions;
  }
  switch (target.kind) {
    case Kind::input:
      input_unix_ms_ = unix_ms();
      return true;
    case Kind::terminal:
      typed_unix_ms_[target.name] = unix_ms();
      return true;
    case Kind::devices:
      watch_inputs();
      return true;
    case Kind::logins:
      if (!name.empty()) utmp_ = false;  // it was made anew
      [[fallthrough]];
    case Kind::sessions:
    case Kind::pause:
      return name.empty() || target.name.empty() || target.name == name;
  }
  return false;
}

}  // namespace pesc::worker::owner
