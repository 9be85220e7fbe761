// The simulated world: a virtual clock, one seeded generator, a queue of events and a trace.
// Nothing in tests/sim looks at a real clock or at anything outside; one seed is one history.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace pesc::sim {

using TimeMs = int64_t;

// SplitMix64: small, and the same on every machine and standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 1) {}
  uint64_t next();
  // In [low, high].
  int64_t between(int64_t low, int64_t high);
  bool chance(double probability);
  // Exponential with this mean: the time to the next fault.
  TimeMs wait(TimeMs mean_ms);

 private:
  uint64_t state_;
};

class World {
 public:
  explicit World(uint64_t seed, bool tracing) : random(seed), tracing_(tracing) {}

  TimeMs now() const { return now_; }
  int64_t unix_ms() const { return 1'700'000'000'000 + now_; }

  void at(TimeMs when, std::function<void()> what);
  void after(TimeMs delay_ms, std::function<void()> what) { at(now_ + delay_ms, std::move(what)); }
  // Performs the next event; false when there is none left, or something has failed.
  bool run_one();
  TimeMs next_time() const;  // of the next event

  // The first failure ends the run.
  void fail(std::string what);
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }

  // `line` makes the text, and is called only while a trace is taken: a seed that fails is run
  // again with one, which costs the others nothing.
  template <class Line>
  void trace(Line line) {
    if (tracing_) add_trace(line());
  }
  const std::deque<std::string>& trace_lines() const { return trace_; }
  void print_trace_at_once() { print_ = true; }
  uint64_t events() const { return events_; }

  Random random;

 private:
  struct Entry {
    TimeMs when;
    uint64_t number;
    std::function<void()> what;
  };
  static bool later(const Entry& a, const Entry& b) {
    return a.when != b.when ? a.when > b.when : a.number > b.number;
  }
  void add_trace(std::string line);

  bool tracing_;
  bool print_ = false;
  TimeMs now_ = 1'000'000;
  uint64_t next_number_ = 0;
  uint64_t events_ = 0;
  std::vector<Entry> queue_;
  std::deque<std::string> trace_;
  std::string failure_;
};

}  // namespace pesc::sim
