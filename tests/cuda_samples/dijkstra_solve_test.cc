// Checkpoints: a search that is stopped anywhere and goes on is the same search.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "dijkstra/emulation.h"
#include "dijkstra/formats.h"
#include "dijkstra/solve.h"
#include "tests/cuda_samples/world.h"

namespace samples::dijkstra {
namespace {

Options options_for(const GraphSpec& spec, unsigned phases_per_look = 1) {
  Options options;
  options.graph = spec;
  options.checkpoint_seconds = 0;
  options.phases_per_look = phases_per_look;
  return options;
}

Outcome attempt(const Options& options, World& world, std::uint64_t shuffle = 0) {
  Emulation machine(options.graph, *layout_for(options.graph.vertices, options.graph.degree),
                    shuffle);
  return solve(options, machine, world.around());
}

const GraphSpec kSpec = {11, 700, 5, 300};

TEST(Solve, StoppedAtEachPhaseItGoesOnToTheSameEnd) {
  const Options options = options_for(kSpec);
  World undisturbed;
  const Outcome whole = attempt(options, undisturbed);
  ASSERT_FALSE(whole.stopped);
  ASSERT_GT(whole.phases, 10U);
  int stops = 0;
  World world;
  Outcome outcome;
  do {  // one phase per attempt
    world.asked = 0;
    world.stop_after = 1;
    outcome = attempt(options, world, static_cast<std::uint64_t>(stops));
    ++stops;
  } while (outcome.stopped);
  EXPECT_EQ(stops, static_cast<int>(whole.phases));
  EXPECT_EQ(outcome.distances, whole.distances);
  EXPECT_EQ(outcome.phases, whole.phases);
  EXPECT_EQ(outcome.relaxed_edges, whole.relaxed_edges);
  EXPECT_EQ(outcome.settled, whole.settled);
  EXPECT_TRUE(world.said.empty());
}

TEST(Solve, CheckpointsAreTheSameBytesInWhateverOrderItRan) {
  const Options options = options_for(kSpec);
  std::vector<std::string> saved;
  for (const std::uint64_t shuffle : {0ULL, 5ULL}) {
    World world;
    world.stop_after = 7;
    EXPECT_TRUE(attempt(options, world, shuffle).stopped);
    saved.push_back(*world.checkpoint);
  }
  EXPECT_EQ(saved[0], saved[1]);
}

TEST(Solve, LooksLessOftenToTheSameEnd) {
  World often, seldom;
  EXPECT_EQ(attempt(options_for(kSpec, 1), often).distances,
            attempt(options_for(kSpec, 7), seldom).distances);
  EXPECT_GT(often.progress.size(), seldom.progress.size());
}

TEST(Solve, SavesEveryPeriod) {
  Options options = options_for(kSpec);
  World never, each;
  EXPECT_EQ(attempt(options, never).phases, attempt(options, each).phases);
  EXPECT_EQ(never.saves, 0);
  options.checkpoint_seconds = 1;
  World world;
  const Outcome outcome = attempt(options, world);
  EXPECT_GE(world.saves, static_cast<int>(outcome.phases) / 2);
  EXPECT_FALSE(outcome.stopped);
}

TEST(Solve, SecondsAddUpOverAttempts) {
  const Options options = options_for(kSpec);
  World world;
  world.stop_after = 3;
  EXPECT_TRUE(attempt(options, world).stopped);
  Snapshot snapshot;
  ASSERT_EQ(decode_checkpoint(*world.checkpoint, kSpec, 0, &snapshot), "");
  EXPECT_GT(snapshot.seconds, 0);
  world.stop_after = -1;
  EXPECT_GT(attempt(options, world).seconds, snapshot.seconds);
}

TEST(Solve, ABadCheckpointCostsTimeNotTheRank) {
  const Options options = options_for(kSpec);
  World undisturbed;
  const Outcome whole = attempt(options, undisturbed);
  World world;
  world.stop_after = 5;
  ASSERT_TRUE(attempt(options, world).stopped);
  world.stop_after = -1;
  world.checkpoint->at(200) ^= 1;
  const Outcome outcome = attempt(options, world);
  EXPECT_EQ(outcome.distances, whole.distances);
  EXPECT_EQ(outcome.phases, whole.phases);
  ASSERT_EQ(world.said.size(), 1U);
  EXPECT_EQ(world.said[0],
            "the checkpoint is not used: it is damaged; starting from the beginning");
}

TEST(Solve, AFinishedCheckpointIsTheEnd) {
  World world;
  const Options options = options_for(kSpec);
  Emulation machine(kSpec, *layout_for(kSpec.vertices, kSpec.degree));
  machine.start(0);
  ASSERT_EQ(machine.run(1000).fringe, 0U);
  world.checkpoint = encode_checkpoint(kSpec, 0, machine.save());
  const Outcome outcome = attempt(options, world);
  EXPECT_EQ(outcome.distances, machine.distances());
}

class Checkpoint : public testing::Test {
 protected:
  Checkpoint() {
    Emulation machine(spec_, *layout_for(spec_.vertices, spec_.degree));
    machine.start(4);
    (void)machine.run(3);
    snapshot_ = machine.save();
    snapshot_.seconds = 1.25;
    bytes_ = encode_checkpoint(spec_, 4, snapshot_);
  }
  std::string trouble(const std::string& bytes) const {
    Snapshot out;
    return decode_checkpoint(bytes, spec_, 4, &out);
  }

  const GraphSpec spec_ = {9, 45, 3, 20};
  Snapshot snapshot_;
  std::string bytes_;
};

TEST_F(Checkpoint, RoundTrip) {
  Snapshot out;
  ASSERT_EQ(decode_checkpoint(bytes_, spec_, 4, &out), "");
  EXPECT_EQ(out.distances, snapshot_.distances);
  EXPECT_EQ(out.settled, snapshot_.settled);
  EXPECT_EQ(out.phases, 3U);
  EXPECT_EQ(out.settled_count, snapshot_.settled_count);
  EXPECT_EQ(out.relaxed_edges, snapshot_.relaxed_edges);
  EXPECT_EQ(out.seconds, 1.25);
  EXPECT_EQ(bytes_.size(), 96 + 45 * 8 + 6U) << "as formats.h says";
}

TEST_F(Checkpoint, EachFlippedBitIsNoticed) {
  for (std::size_t at = 0; at < bytes_.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string damaged = bytes_;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      EXPECT_NE(trouble(damaged), "") << at;
    }
  }
}

TEST_F(Checkpoint, EachOtherLengthIsNoticed) {
  for (std::size_t size = 0; size < bytes_.size(); ++size) {
    EXPECT_NE(trouble(bytes_.substr(0, size)), "") << size;
  }
  EXPECT_EQ(trouble(bytes_ + '\0'), "it is cut off or too long");
}

TEST_F(Checkpoint, OfAnotherRunIsNotUsed) {
  Snapshot out;
  EXPECT_EQ(decode_checkpoint(bytes_, spec_, 5, &out), "it is of another graph or source");
  for (const GraphSpec& other : {GraphSpec{8, 45, 3, 20}, GraphSpec{9, 46, 3, 20},
                                 GraphSpec{9, 45, 4, 20}, GraphSpec{9, 45, 3, 21}}) {
    EXPECT_EQ(decode_checkpoint(bytes_, other, 4, &out), "it is of another graph or source");
  }
}

TEST_F(Checkpoint, PartsThatContradictEachOtherAreNoticed) {
  Snapshot wrong = snapshot_;
  wrong.settled_count += 1;
  EXPECT_EQ(trouble(encode_checkpoint(spec_, 4, wrong)), "its parts contradict each other");
}

}  // namespace
}  // namespace samples::dijkstra
