// Follows the files that running programs append events to (PESC_EVENTS). One inotify descriptor
// for all of them; what a program writes there, and how fast, costs a bounded amount of work.
// On the loop's thread.
#pragma once

#include <asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "model/contract.h"
#include "model/ids.h"
#include "rpc/loop.h"
#include "runtime/common/state_dir.h"

namespace pesc::worker {

class EventsWatch {
 public:
  // The newest progress that the program has written since the last call.
  using Handler = std::function<void(const AttemptKey&, double fraction, const std::string& text)>;
  // The program has said `checkpoint` since the last call, once or more.
  using CheckpointHandler = std::function<void(const AttemptKey&)>;
  struct Options {
    // Ranks shorter than this are never looked at: a watch costs as much as a few files.
    uint64_t start_after_ms = 100;
    // A file is read at most this often, and then at most its last megabyte.
    uint64_t read_every_ms = 50;
  };
  static absl::StatusOr<std::unique_ptr<EventsWatch>> open(rpc::Loop& loop, Options options,
                                                           Handler handler,
                                                           CheckpointHandler checkpoint = {});
  ~EventsWatch();

  void add(const AttemptKey& key, const std::string& path);
  void remove(const AttemptKey& key);
  // What was written last, before its end: then remove().
  void read_rest(const AttemptKey& key);
  size_t watched() const { return by_watch_.size(); }

 private:
  struct File {
    std::string path;
    int watch = -1;
    common::UniqueFd fd;
    uint64_t offset = 0;
    std::string partial;     // a line whose end is not written yet
    bool skip_line = false;  // it is too long, or its beginning was skipped
  };
  EventsWatch(rpc::Loop& loop, Options options, Handler handler, CheckpointHandler checkpoint);
  void listen();
  void on_readable();
  void begin_watching();
  void plan_begin();
  void plan_read();
  void read_dirty();
  void read_file(const AttemptKey& key, File& file);

  rpc::Loop& loop_;
  const Options options_;
  const Handler handler_;
  const CheckpointHandler checkpoint_;
  asio::posix::stream_descriptor inotify_;
  std::map<AttemptKey, File> files_;
  std::map<int, AttemptKey> by_watch_;
  std::deque<std::pair<kj::TimePoint, AttemptKey>> waiting_;
  std::set<AttemptKey> dirty_;
  kj::TimePoint last_read_ = kj::origin<kj::TimePoint>();
  bool begin_planned_ = false, read_planned_ = false;
  // Handlers that are still queued when this is destroyed find it empty.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  kj::Promise<void> begin_timer_ = nullptr, read_timer_ = nullptr;
};

// Whether the file's newest part (4 MiB) has a `checkpoint` line. Of a program that was not
// watched.
bool has_checkpoint_event(const std::string& path);

}  // namespace pesc::worker
