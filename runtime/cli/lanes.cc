#include "runtime/cli/lanes.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "model/job_spec.h"

namespace pesc::cli {
namespace {

// More ranks than this are shown as a sum alone.
constexpr size_t kMostBars = 40;

// A value that steps at times.
using Steps = std::map<int64_t, int64_t>;  // time, change

template <typename Weight>
Steps steps_of(const Lane& lane, Weight weight) {
  Steps steps;
  for (const Lane::Bar& bar : lane.bars) {
    steps[bar.from_ms] += weight(bar);
    steps[bar.to_ms] -= weight(bar);
  }
  return steps;
}

int64_t most(const Steps& steps) {
  int64_t value = 0, highest = 0;
  for (const auto& [time, change] : steps) highest = std::max(highest, value += change);
  return highest;
}

std::vector<uint32_t> over_time(const Steps& steps, int64_t from_ms, int64_t to_ms) {
  std::vector<uint32_t> most(kLaneSteps);
  const int64_t all = std::max<int64_t>(to_ms - from_ms, 1);
  const auto step_at = [&](int64_t time) {
    return std::min<int64_t>((time - from_ms) * int64_t(kLaneSteps) / all, kLaneSteps - 1);
  };
  int64_t value = 0, before = from_ms;
  for (const auto& [time, change] : steps) {
    // What ends where a step begins is not in it.
    for (int64_t i = step_at(before); value > 0 && i <= step_at(std::max(before, time - 1)); ++i) {
      most[size_t(i)] = std::max(most[size_t(i)], uint32_t(value));
    }
    value += change;
    before = time;
  }
  return most;
}

void sum_up(Lane& lane, const Lanes& lanes) {
  std::sort(lane.bars.begin(), lane.bars.end(), [](const Lane::Bar& a, const Lane::Bar& b) {
    return std::pair(a.from_ms, a.rank) < std::pair(b.from_ms, b.rank);
  });
  std::vector<double> seconds;
  for (const Lane::Bar& bar : lane.bars) {
    seconds.push_back(double(bar.to_ms - bar.from_ms) / 1000);
    lane.mean_seconds += seconds.back();
    lane.gpu_peak_bytes = std::max(lane.gpu_peak_bytes, bar.gpu_bytes);
  }
  std::sort(seconds.begin(), seconds.end());
  const size_t n = seconds.size();
  lane.mean_seconds /= double(n);
  lane.min_seconds = seconds.front();
  lane.max_seconds = seconds.back();
  lane.median_seconds = (seconds[n / 2] + seconds[(n - 1) / 2]) / 2;
  const Steps running = steps_of(lane, [](const Lane::Bar&) { return 1; });
  lane.at_once = uint32_t(std::max<int64_t>(most(running), 1));
  lane.gpu_at_once_bytes =
      uint64_t(most(steps_of(lane, [](const Lane::Bar& bar) { return int64_t(bar.gpu_bytes); })));
  int64_t value = 0, before = 0;
  for (const auto& [time, change] : running) {
    if (value > 0) lane.busy_seconds += double(time - before) / 1000;
    value += change;
    before = time;
  }
  lane.at_once_over_time = over_time(running, lanes.from_ms, lanes.to_ms);
}

std::string name_of(const Lane& lane) {
  return lane.gpu.empty() ? lane.worker : lane.worker + " " + lane.gpu;
}

// Eighths of a line's height.
std::string sparkline(const Lane& lane) {
  static constexpr const char* kEighths[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::string text;
  for (const uint32_t value : lane.at_once_over_time) {
    text += kEighths[(value * 8 + lane.at_once - 1) / lane.at_once];
  }
  return text;
}

std::string bar_text(const Lane::Bar& bar, const Lanes& lanes) {
  const int64_t all = std::max<int64_t>(lanes.to_ms - lanes.from_ms, 1);
  const auto column = [&](int64_t time) {
    return size_t((time - lanes.from_ms) * int64_t(kLaneSteps) / all);
  };
  const size_t from = std::min(column(bar.from_ms), kLaneSteps - 1);
  const size_t to = std::clamp(column(bar.to_ms), from + 1, kLaneSteps);
  std::string text(from, ' ');
  for (size_t i = from; i < to; ++i) text += bar.failed ? "x" : "█";
  return text + std::string(kLaneSteps - to, ' ');
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

// ---- the drawing --------------------------------------------------------------------------------

constexpr double kLeft = 190, kWide = 760, kRow = 10, kGap = 16, kMemoryHeight = 40;
// A lane of more ranks is drawn as the number that ran at once.
constexpr size_t kMostDrawn = 2'000;
constexpr double kMostRows = 64;

class Drawing {
 public:
  Drawing(const Lanes& lanes, const std::string& title) : lanes_(lanes) {
    text(10, y_ + 14, title, "font-weight=\"bold\"");
    y_ += 34;
    for (const Lane& lane : lanes.lanes) add(lane);
    axis();
  }
  std::string take() {
    return fmt::format(
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{:.0f}\" height=\"{:.0f}\" "
               "font-family=\"sans-serif\" font-size=\"11\">\n"
               "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
               kLeft + kWide + 30, y_ + 30) +
           body_ + "</svg>\n";
  }

 private:
  double x_of(int64_t time) const {
    const double all = double(std::max<int64_t>(lanes_.to_ms - lanes_.from_ms, 1));
    return kLeft + kWide * double(time - lanes_.from_ms) / all;
  }
  void text(double x, double y, const std::string& what, const char* more = "") {
    body_ +=
        fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, more, escaped(what));
  }
  void add(const Lane& lane) {
    text(10, y_ + 10, lane.worker);
    if (!lane.gpu.empty()) text(10, y_ + 23, lane.gpu.substr(0, 26), "fill=\"#555\"");
    text(10, y_ + (lane.gpu.empty() ? 23 : 36),
         fmt::format("{} ranks, {} at once", lane.bars.size(), lane.at_once), "fill=\"#555\"");
    const double top = y_;
    if (lane.bars.size() <= kMostDrawn && lane.at_once <= kMostRows) {
      bars(lane);
    } else {
      area(steps_of(lane, [](const Lane::Bar&) { return 1; }), lane.at_once, 60, "#4477aa");
    }
    if (lane.gpu_at_once_bytes > 0) {
      y_ += 4;
      text(kLeft - 4, y_ + 10, format_bytes(lane.gpu_at_once_bytes),
           "fill=\"#555\" text-anchor=\"end\"");
      area(steps_of(lane, [](const Lane::Bar& bar) { return int64_t(bar.gpu_bytes); }),
           int64_t(lane.gpu_at_once_bytes), kMemoryHeight, "#cc9966");
    }
    y_ = std::max(y_, top + 40) + kGap;
  }
  // Each in the first row that is free.
  void bars(const Lane& lane) {
    std::vector<int64_t> free_at;
    for (const Lane::Bar& bar : lane.bars) {
      auto row = std::find_if(free_at.begin(), free_at.end(),
                              [&](int64_t time) { return time <= bar.from_ms; });
      if (row == free_at.end()) row = free_at.insert(row, 0);
      *row = bar.to_ms;
      const double top = y_ + kRow * double(row - free_at.begin());
      body_ += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" "
          "stroke=\"white\" stroke-width=\"0.5\"><title>rank {}: {:.3f} s{}</title></rect>\n",
          x_of(bar.from_ms), top, std::max(0.8, x_of(bar.to_ms) - x_of(bar.from_ms)), kRow - 1,
          bar.failed ? "#bb4444" : "#4477aa", bar.rank, double(bar.to_ms - bar.from_ms) / 1000,
          bar.gpu_bytes > 0 ? ", " + format_bytes(bar.gpu_bytes) + " of GPU memory" : "");
    }
    y_ += kRow * double(free_at.size());
  }
  void area(const Steps& steps, int64_t highest, double height, const char* fill) {
    int64_t value = 0;
    std::string points = fmt::format("{:.1f},{:.1f}", x_of(lanes_.from_ms), y_ + height);
    const auto at = [&](int64_t time) {
      points += fmt::format(" {:.1f},{:.1f}", x_of(time),
                            y_ + height * (1 - double(value) / double(highest)));
    };
    for (const auto& [time, change] : steps) {
      at(time);
      value += change;
      at(time);
    }
    body_ += fmt::format("<polygon points=\"{}\" fill=\"{}\"/>\n", points, fill);
    y_ += height;
  }
  void axis() {
    constexpr int kTicks = 5;
    body_ += fmt::format(
        "<line x1=\"{0}\" y1=\"{2:.1f}\" x2=\"{1}\" y2=\"{2:.1f}\" "
        "stroke=\"#555\"/>\n",
        kLeft, kLeft + kWide, y_);
    for (int i = 0; i <= kTicks; ++i) {
      const int64_t ms = (lanes_.to_ms - lanes_.from_ms) * i / kTicks;
      text(kLeft + kWide * i / kTicks, y_ + 16, format_duration_ms(uint64_t(ms)),
           "fill=\"#555\" text-anchor=\"middle\"");
    }
  }

  const Lanes& lanes_;
  double y_ = 8;
  std::string body_;
};

}  // namespace

Lanes lanes_of(const std::vector<RankResult>& ranks) {
  std::map<std::pair<std::string, std::string>, Lane> lanes;
  Lanes out;
  for (const RankResult& rank : ranks) {
    const bool ran = rank.state == State::succeeded || rank.state == State::failed;
    if (!ran || rank.started_unix_ms <= 0) continue;
    Lane::Bar bar;
    bar.rank = rank.rank;
    bar.from_ms = rank.started_unix_ms;
    bar.to_ms = rank.started_unix_ms + std::max<int64_t>(int64_t(rank.seconds * 1000), 1);
    bar.gpu_bytes = rank.peak_gpu_bytes;
    bar.failed = rank.state == State::failed;
    if (out.from_ms == 0 || bar.from_ms < out.from_ms) out.from_ms = bar.from_ms;
    out.to_ms = std::max(out.to_ms, bar.to_ms);
    for (const std::string& gpu : rank.gpus) lanes[{rank.worker, gpu}].bars.push_back(bar);
    if (rank.gpus.empty()) lanes[{rank.worker, ""}].bars.push_back(bar);
  }
  for (auto& [key, lane] : lanes) {
    lane.worker = key.first;
    lane.gpu = key.second;
    sum_up(lane, out);
    out.lanes.push_back(std::move(lane));
  }
  return out;
}

std::vector<std::string> lane_lines(const Lanes& lanes) {
  if (lanes.lanes.empty()) return {};
  size_t wide = 6, bars = 0;
  bool gpus = false;
  for (const Lane& lane : lanes.lanes) {
    wide = std::max(wide, name_of(lane).size());
    bars += lane.bars.size();
    gpus = gpus || lane.gpu_peak_bytes > 0;
  }
  std::vector<std::string> lines = {
      fmt::format("{:{}}  {:>7}  {:>7}  {:>9}  {:>9}  {:>9}{}", "WHERE", wide, "RANKS", "AT ONCE",
                  "MEAN", "LONGEST", "BUSY", gpus ? "  GPU MEMORY (OF A RANK)" : "")};
  const auto time = [](double seconds) { return format_duration_ms(uint64_t(seconds * 1000)); };
  for (const Lane& lane : lanes.lanes) {
    std::string line = fmt::format("{:{}}  {:>7}  {:>7}  {:>9}  {:>9}  {:>9}", name_of(lane), wide,
                                   lane.bars.size(), lane.at_once, time(lane.mean_seconds),
                                   time(lane.max_seconds), time(lane.busy_seconds));
    if (lane.gpu_peak_bytes > 0) {
      line += fmt::format("  {} ({})", format_bytes(lane.gpu_at_once_bytes),
                          format_bytes(lane.gpu_peak_bytes));
    }
    lines.push_back(std::move(line));
  }
  lines.push_back(
      fmt::format("how many ran at once, in the {} from the first start to the last end:",
                  time(double(lanes.to_ms - lanes.from_ms) / 1000)));
  for (const Lane& lane : lanes.lanes) {
    lines.push_back(
        fmt::format("{:{}} |{}| {}", name_of(lane), wide, sparkline(lane), lane.at_once));
    if (bars > kMostBars) continue;
    for (const Lane::Bar& bar : lane.bars) {
      lines.push_back(fmt::format("{:>{}} |{}| {}", fmt::format("rank {}", bar.rank), wide,
                                  bar_text(bar, lanes),
                                  time(double(bar.to_ms - bar.from_ms) / 1000)));
    }
  }
  return lines;
}

std::string lanes_svg(const Lanes& lanes, const std::string& title) {
  return Drawing(lanes, title).take();
}

}  // namespace pesc::cli
