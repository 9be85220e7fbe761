// Who is logged in, and when they last did something.
#include <sys/stat.h>
#include <unistd.h>
#include <utmp.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "runtime/worker/owner/probes.h"
#include "runtime/worker/owner/read_text.h"

namespace pesc::worker::owner {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostLogins = 1'000;

template <size_t N>
std::string text_of(const char (&field)[N]) {
  return std::string(field, strnlen(field, N));
}

// A terminal's name becomes a path below /dev: nothing may climb out of it.
bool is_terminal(std::string_view name) {
  return (name.starts_with("tty") || name.starts_with("pts/")) && name.find("..") == name.npos &&
         name.find('\0') == name.npos;
}

int64_t to_unix_ms(const timespec& time) {
  return int64_t{time.tv_sec} * 1000 + time.tv_nsec / 1'000'000;
}

// The kernel notes when a terminal was read last (to eight seconds): that is, when its user typed.
std::optional<int64_t> last_read(const fs::path& root, const std::string& terminal) {
  struct stat info {};
  if (terminal.empty() || ::stat((root / "dev" / terminal).c_str(), &info) != 0) {
    return std::nullopt;
  }
  return to_unix_ms(info.st_atim);
}

// Of a login whose terminal nobody has told: the latest of all that the user has.
std::optional<int64_t> last_read_of_user(const fs::path& root, uid_t uid) {
  std::optional<int64_t> latest;
  std::error_code error;
  for (fs::directory_iterator it(root / "dev/pts", error), end; !error && it != end;
       it.increment(error)) {
    struct stat info {};
    if (::stat(it->path().c_str(), &info) != 0 || info.st_uid != uid) continue;
    latest = std::max(latest.value_or(0), to_unix_ms(info.st_atim));
  }
  return latest;
}

// An entry that was left behind by a crash names a process that is no more.
bool is_there(const fs::path& root, pid_t leader) {
  struct stat info {};
  if (leader <= 0 || ::stat((root / "proc/stat").c_str(), &info) != 0) return true;
  return ::stat((root / "proc" / std::to_string(leader)).c_str(), &info) == 0;
}

std::vector<Login> logins(const fs::path& root) {
  std::vector<Login> all;
  if (const auto bytes = read_text(utmp_path(root))) all = parse_utmp(*bytes);
  std::error_code error;
  for (fs::directory_iterator it(root / "run/systemd/sessions", error), end;
       !error && it != end && all.size() < kMostLogins; it.increment(error)) {
    if (it->path().filename().string().ends_with(".ref")) continue;  // a FIFO
    const auto text = read_text(it->path());
    auto login = text ? parse_logind_session(*text) : std::nullopt;
    if (login) all.push_back(*std::move(login));
  }
  return all;
}

std::string place_of(const Login& login) {
  if (!login.terminal.empty()) return login.terminal;
  return login.graphical ? "the screen" : "a session";
}

}  // namespace

fs::path utmp_path(const fs::path& root) {
  std::error_code error;
  // Without the link from /var/run, which leads out of another root than "/".
  return fs::exists(root / "run/utmp", error) || !fs::exists(root / "var/run/utmp", error)
             ? root / "run/utmp"
             : root / "var/run/utmp";
}

std::vector<Login> parse_utmp(std::string_view bytes) {
  std::vector<Login> found;
  for (size_t at = 0; at + sizeof(utmp) <= bytes.size() && found.size() < kMostLogins;
       at += sizeof(utmp)) {
    utmp entry;
    std::memcpy(&entry, bytes.data() + at, sizeof entry);
    if (entry.ut_type != USER_PROCESS || entry.ut_user[0] == '\0') continue;
    Login login;
    login.user = text_of(entry.ut_user);
    const std::string line = text_of(entry.ut_line);
    if (is_terminal(line)) login.terminal = line;
    login.graphical = line.starts_with(':') || entry.ut_host[0] == ':';
    login.leader = entry.ut_pid;
    login.since_unix_ms = int64_t{entry.ut_tv.tv_sec} * 1000;
    found.push_back(std::move(login));
  }
  return found;
}

std::optional<Login> parse_logind_session(std::string_view text) {
  std::map<std::string_view, std::string_view> values;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    const size_t equals = line.find('=');
    if (equals != line.npos && line[0] != '#')
      values[line.substr(0, equals)] = line.substr(equals + 1);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  const auto value = [&](std::string_view key) {
    const auto it = values.find(key);
    return it == values.end() ? std::string_view() : it->second;
  };
  // Greeters, cron and managers are nobody. A session without screen, terminal or other machine is
  // a job's.
  const bool reachable = !value("SEAT").empty() || !value("TTY").empty() || value("REMOTE") == "1";
  if (!value("CLASS").starts_with("user") || value("CLASS") == "user-incomplete" || !reachable) {
    return std::nullopt;
  }
  if (value("STATE") == "closing" || value("STATE") == "opening") return std::nullopt;
  Login login;
  login.user = value("USER");
  if (is_terminal(value("TTY"))) login.terminal = value("TTY");
  const std::string_view type = value("TYPE");
  login.graphical = type == "x11" || type == "wayland" || type == "mir";
  login.active = value("ACTIVE") != "0" || value("SEAT").empty();
  login.leader = std::atoi(std::string(value("LEADER")).c_str());
  if (!value("UID").empty())
    login.uid = std::strtoul(std::string(value("UID")).c_str(), nullptr, 10);
  login.since_unix_ms = std::atoll(std::string(value("REALTIME")).c_str()) / 1000;
  return login;
}

std::vector<Presence> people(const fs::path& root, int64_t now_unix_ms,
                             std::optional<int64_t> input_unix_ms) {
  std::vector<Presence> found;
  for (const Login& login : logins(root)) {
    if (!login.active || !is_there(root, login.leader)) continue;
    int64_t latest = login.since_unix_ms;
    if (login.graphical) {
      latest = std::max(latest, input_unix_ms.value_or(now_unix_ms));
    } else if (auto read = last_read(root, login.terminal)) {
      latest = std::max(latest, *read);
    } else if (login.uid) {
      latest = std::max(latest, last_read_of_user(root, *login.uid).value_or(0));
    }
    found.push_back({login.user, place_of(login),
                     static_cast<uint64_t>(std::max<int64_t>(now_unix_ms - latest, 0))});
  }
  // Hands on the keyboard before a login are somebody too.
  if (input_unix_ms && *input_unix_ms > 0) {
    found.push_back({"", "keyboard or mouse",
                     static_cast<uint64_t>(std::max<int64_t>(now_unix_ms - *input_unix_ms, 0))});
  }
  return found;
}

std::vector<Sight> what_is_seen(const fs::path& root) {
  std::vector<Sight> sights;
  const auto readable = [&](const fs::path& path) { return ::access(path.c_str(), R_OK) == 0; };
  const fs::path utmp_file = utmp_path(root), sessions = root / "run/systemd/sessions";
  if (readable(utmp_file) || readable(sessions)) {
    std::string text;
    if (readable(utmp_file)) text = utmp_file.string();
    if (readable(sessions)) text += (text.empty() ? "" : " and ") + sessions.string();
    sights.push_back({"owner's logins", true, "from " + text + ", as they change"});
  } else {
    sights.push_back({"owner's logins", false,
                      "neither " + utmp_file.string() + " nor " + sessions.string() +
                          " can be read: tell by presence_command who is here"});
  }
  size_t devices = 0, open = 0;
  std::error_code error;
  for (fs::directory_iterator it(root / "dev/input", error), end; !error && it != end;
       it.increment(error)) {
    if (!it->path().filename().string().starts_with("event")) continue;
    ++devices;
    open += readable(it->path()) ? 1 : 0;
  }
  const bool input = open > 0 && open == devices;
  sights.push_back(
      {"owner's input", input,
       input ? std::to_string(open) + " keyboards, mice and the like, as they are used"
       : devices == 0
           ? "there is no /dev/input: terminals are seen, keyboards and screens are not"
           : "/dev/input may not be read by this user (a worker of root may): whoever is logged in "
             "at the screen counts as busy; presence_command can know better"});
  const bool load = readable(root / "proc/stat") && memory_percent(root).has_value();
  sights.push_back({"owner's load", load,
                    load ? "processors and memory, from " + (root / "proc").string()
                         : (root / "proc").string() + " cannot be read"});
  return sights;
}

}  // namespace pesc::worker::owner
