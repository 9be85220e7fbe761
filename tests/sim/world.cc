#include "tests/sim/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace pesc::sim {
namespace {
constexpr size_t kTraceLines = 60;
}

uint64_t Random::next() {
  uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

int64_t Random::between(int64_t low, int64_t high) {
  if (high <= low) return low;
  return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
}

bool Random::chance(double probability) {
  return static_cast<double>(next() >> 11) * 0x1.0p-53 < probability;
}

TimeMs Random::wait(TimeMs mean_ms) {
  const double u = static_cast<double>((next() >> 11) + 1) * 0x1.0p-53;
  return 1 + static_cast<TimeMs>(-std::log(u) * static_cast<double>(mean_ms));
}

void World::at(TimeMs when, std::function<void()> what) {
  queue_.push_back({std::max(when, now_), next_number_++, std::move(what)});
  std::push_heap(queue_.begin(), queue_.end(), later);
}

bool World::run_one() {
  if (queue_.empty() || failed()) return false;
  std::pop_heap(queue_.begin(), queue_.end(), later);
  Entry entry = std::move(queue_.back());
  queue_.pop_back();
  now_ = entry.when;
  ++events_;
  entry.what();
  return !failed();
}

TimeMs World::next_time() const { return queue_.empty() ? now_ : queue_.front().when; }

void World::fail(std::string what) {
  if (failed()) return;
  trace([&] { return "FAILED: " + what; });
  failure_ = std::move(what);
}

void World::add_trace(std::string line) {
  line = fmt::format("{:>10.3f} s  {}", static_cast<double>(now_ - 1'000'000) / 1e3, line);
  if (print_) std::puts(line.c_str());
  trace_.push_back(std::move(line));
  if (trace_.size() > kTraceLines) trace_.pop_front();
}

}  // namespace pesc::sim
