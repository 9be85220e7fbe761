#include "runtime/cli/lanes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/cli/sizes.h"

namespace pesc::cli {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr int64_t kNoon = 1'700'000'000'000;

RankResult rank(uint32_t number, const std::string& worker, double from, double seconds,
                std::vector<std::string> gpus = {}, uint64_t gpu_bytes = 0) {
  RankResult result;
  result.rank = number;
  result.state = State::succeeded;
  result.worker = worker;
  result.started_unix_ms = kNoon + int64_t(from * 1000);
  result.seconds = seconds;
  result.gpus = std::move(gpus);
  result.peak_gpu_bytes = gpu_bytes;
  return result;
}

// The thesis's scenario in small: one GPU for one at a time, one that is shared.
std::vector<RankResult> scenario() {
  const uint64_t size = 1328ull << 20;
  return {rank(0, "small", 0, 10, {"GPU-1"}, size),
          rank(1, "small", 10, 10, {"GPU-1"}, size),
          rank(2, "large", 0, 6, {"GPU-2"}, size),
          rank(3, "large", 1, 6, {"GPU-2"}, size),
          rank(4, "large", 2, 6, {"GPU-2"}, size),
          rank(5, "large", 12, 4, {"GPU-2"}, size),
          rank(6, "large", 12, 8, {}, 0)};
}

TEST(Lanes, AreOneForEachWorkerAndGpu) {
  const Lanes lanes = lanes_of(scenario());
  ASSERT_THAT(lanes.lanes, SizeIs(3));
  EXPECT_EQ(lanes.to_ms - lanes.from_ms, 20'000);
  const Lane &cpu = lanes.lanes[0], &large = lanes.lanes[1], &small = lanes.lanes[2];
  EXPECT_EQ(cpu.worker, "large");
  EXPECT_EQ(cpu.gpu, "");
  EXPECT_THAT(cpu.bars, SizeIs(1));
  EXPECT_EQ(large.gpu, "GPU-2");
  EXPECT_THAT(large.bars, SizeIs(4));
  EXPECT_EQ(large.at_once, 3u);
  EXPECT_EQ(large.gpu_at_once_bytes, 3 * (1328ull << 20));
  EXPECT_EQ(large.gpu_peak_bytes, 1328ull << 20);
  EXPECT_DOUBLE_EQ(large.busy_seconds, 12);
  EXPECT_DOUBLE_EQ(large.mean_seconds, 5.5);
  EXPECT_DOUBLE_EQ(large.median_seconds, 6);
  EXPECT_DOUBLE_EQ(large.min_seconds, 4);
  EXPECT_EQ(small.at_once, 1u) << "the second began when the first ended";
  EXPECT_DOUBLE_EQ(small.busy_seconds, 20);
  EXPECT_THAT(small.at_once_over_time, Each(1u));
  EXPECT_THAT(large.at_once_over_time, SizeIs(kLaneSteps));
  EXPECT_EQ(large.at_once_over_time[0], 1u);
  EXPECT_EQ(large.at_once_over_time[9], 3u);
  EXPECT_EQ(large.at_once_over_time[30], 0u);
}

TEST(Lanes, ARankWithTwoGpusIsInBoth) {
  const Lanes lanes = lanes_of({rank(0, "w", 0, 1, {"GPU-1", "GPU-2"})});
  ASSERT_THAT(lanes.lanes, SizeIs(2));
  EXPECT_EQ(lanes.lanes[0].bars[0].rank, lanes.lanes[1].bars[0].rank);
}

TEST(Lanes, OfWhatHasNotRunAreNone) {
  RankResult waits;
  RankResult cancelled;
  cancelled.state = State::cancelled;
  RankResult never;  // it failed before it began
  never.state = State::failed;
  const Lanes lanes = lanes_of({waits, cancelled, never});
  EXPECT_THAT(lanes.lanes, IsEmpty());
  EXPECT_THAT(lane_lines(lanes), IsEmpty());
}

TEST(LaneLines, AreATableAndABarForEachRankOfASmallJob) {
  const std::vector<std::string> lines = lane_lines(lanes_of(scenario()));
  ASSERT_THAT(lines, SizeIs(1 + 3 + 1 + 3 + 7));
  EXPECT_THAT(lines[0], HasSubstr("WHERE"));
  EXPECT_THAT(lines[2], HasSubstr("large GPU-2        4        3"));
  EXPECT_THAT(lines[2], HasSubstr("3.9 GiB (1.3 GiB)"));
  EXPECT_THAT(lines[4], HasSubstr("20.0s"));
  EXPECT_THAT(lines[7], HasSubstr("large GPU-2 |"));
  EXPECT_THAT(lines[8], HasSubstr("rank 2 |█"));
}

TEST(LaneLines, OfAManyRanksAreSumsAlone) {
  std::vector<RankResult> ranks;
  for (uint32_t i = 0; i < 1000; ++i) ranks.push_back(rank(i, "w", i % 7, 1 + i % 3));
  EXPECT_THAT(lane_lines(lanes_of(ranks)), SizeIs(1 + 1 + 1 + 1));
}

TEST(Svg, HasABarForEachRankAndIsWellFormed) {
  std::vector<RankResult> ranks = scenario();
  ranks[6].worker = "a<b>&\"c\"";
  const std::string svg = lanes_svg(lanes_of(ranks), "job <1>");
  EXPECT_THAT(svg, HasSubstr("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_THAT(svg, HasSubstr("job &lt;1&gt;"));
  EXPECT_THAT(svg, HasSubstr("a&lt;b&gt;&amp;&quot;c&quot;"));
  EXPECT_THAT(svg, Not(HasSubstr("a<b>")));
  size_t bars = 0;
  for (size_t at = 0; (at = svg.find("<title>rank ", at)) != svg.npos; ++at) ++bars;
  EXPECT_EQ(bars, 7u);
  EXPECT_THAT(svg, HasSubstr("<polygon"));
}

TEST(Svg, OfAMillionRanksStaysSmall) {
  std::vector<RankResult> ranks;
  for (uint32_t i = 0; i < 100'000; ++i) ranks.push_back(rank(i, "w", i % 1000, 1));
  EXPECT_LT(lanes_svg(lanes_of(ranks), "large").size(), 200'000u);
}

TEST(Sizes, AreWhatWasAskedMeasuredAndHeldTo) {
  Resources asked;
  asked.cpus_milli = 2000;
  asked.gpus_milli = 1000;
  std::vector<RankResult> ranks;
  for (uint32_t i = 1; i <= 3; ++i) {
    ranks.push_back(rank(i, "w", 0, 10, {"GPU-1"}, i << 20));
    ranks.back().cpu_seconds = 10.0 * i;
    ranks.back().max_rss_bytes = i << 30;
    ranks.back().memory_limit_bytes = 5ull << 30;
    ranks.back().gpu_memory_bytes = 7 << 20;
    ranks.back().written_bytes = 100 * i;
  }
  RankResult waits;
  waits.memory_limit_bytes = 1ull << 50;
  ranks.push_back(waits);
  const Sizes sizes = sizes_of(asked, ranks);
  EXPECT_EQ(sizes.cpus.asked, 2);
  EXPECT_DOUBLE_EQ(sizes.cpus.measured->median, 2);
  EXPECT_DOUBLE_EQ(sizes.cpus.measured->max, 3);
  EXPECT_FALSE(sizes.memory.asked);
  EXPECT_DOUBLE_EQ(sizes.memory.measured->min, 1 << 30);
  EXPECT_EQ(sizes.memory.limit, double(5ull << 30));
  EXPECT_FALSE(sizes.disk.limit);
  EXPECT_DOUBLE_EQ(sizes.gpu_memory.measured->max, 3 << 20);
  EXPECT_EQ(sizes.gpu_memory.limit, double(7 << 20));
  const std::vector<std::string> lines = size_lines(sizes);
  EXPECT_THAT(lines[1], HasSubstr("cpus"));
  EXPECT_THAT(lines[2], HasSubstr("1 GiB, 2 GiB, 3 GiB"));
  EXPECT_THAT(lines[2], HasSubstr("5 GiB"));
  EXPECT_THAT(lines, Not(testing::Contains(HasSubstr("disk"))));
}

}  // namespace
}  // namespace pesc::cli
