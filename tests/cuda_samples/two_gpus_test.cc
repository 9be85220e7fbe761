#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda_samples/world.h"
#include "two_gpus/iterate.h"
#include "two_gpus/machine.h"

namespace samples::two_gpus {
namespace {

using testing::HasSubstr;

// Jacobi's method in four lines, to compare with.
Field plainly(const Plate& plate, std::uint64_t iterations, float* change) {
  Field now = initial_field(plate), next = now;
  const std::size_t s = plate.stride();
  for (std::uint64_t i = 0; i < iterations; ++i, std::swap(now, next)) {
    *change = 0;
    for (std::size_t y = 1; y <= plate.height; ++y) {
      for (std::size_t x = 1; x <= plate.width; ++x) {
        const std::size_t at = y * s + x;
        next[at] = ((now[at - 1] + now[at + 1]) + (now[at - s] + now[at + s])) / 4;
        *change = std::max(*change, std::abs(next[at] - now[at]));
      }
    }
  }
  return now;
}

TEST(Plate, RowsAreDividedWithoutGapOrOverlap) {
  for (const std::uint64_t height : {2ULL, 3ULL, 7ULL, 8192ULL}) {
    for (unsigned parts = 1; parts <= 3 && parts <= height; ++parts) {
      std::uint64_t next = 1;
      for (const Part& part : divided({5, height, 0}, parts)) {
        EXPECT_EQ(part.first, next);
        EXPECT_GE(part.rows, height / parts);
        next += part.rows;
      }
      EXPECT_EQ(next, height + 1);
    }
  }
}

TEST(Plate, BeginsAsItSays) {
  const Plate plate = {6, 4, 1};
  const Field field = initial_field(plate);
  ASSERT_EQ(field.size(), 8U * 6U);
  for (std::size_t x = 0; x < 8; ++x) EXPECT_EQ(field[x], 100.0F);
  for (std::size_t x = 0; x < 8; ++x) EXPECT_EQ(field[5 * 8 + x], 0.0F);
  for (std::size_t y = 1; y < 6; ++y) EXPECT_EQ(field[y * 8] + field[y * 8 + 7], 0.0F);
  for (std::size_t x = 1; x <= 6; ++x) {
    EXPECT_GE(field[8 + x], 0.0F);
    EXPECT_LT(field[8 + x], 100.0F);
  }
  EXPECT_NE(field, initial_field({6, 4, 2}));
  EXPECT_EQ(bytes_per_gpu(plate, 2), 2U * 4U * 8U * 4U + 4U);
}

TEST(Machine, DividedIsTheSameInEveryBit) {
  for (const Plate& plate : {Plate{1, 2, 1}, Plate{7, 3, 2}, Plate{33, 20, 3}, Plate{20, 33, 4}}) {
    float expected_change = 0;
    const Field expected = plainly(plate, 25, &expected_change);
    for (unsigned parts = 1; parts <= 3 && parts <= plate.height; ++parts) {
      Emulation machine(plate, parts);
      machine.load(initial_field(plate));
      (void)machine.run(10);
      EXPECT_EQ(machine.run(15), expected_change) << parts;
      Field field;
      machine.store(field);
      EXPECT_EQ(field, expected) << parts;
    }
  }
}

TEST(Machine, TheEdgeRowsAreTheFirstAndTheLast) {
  EXPECT_EQ(edge_rows({1, 1, 5}), 1U);
  EXPECT_EQ(edge_row({1, 1, 5}, 0), 1U);
  EXPECT_EQ(edge_rows({1, 2, 5}), 2U);
  EXPECT_EQ(edge_row({1, 9, 5}, 1), 9U);
}

Options options_for(const Plate& plate, std::uint64_t iterations) {
  Options options;
  options.plate = plate;
  options.iterations = iterations;
  options.checkpoint_seconds = 0;
  return options;
}

State attempt(const Options& options, World& world, unsigned parts = 2) {
  Emulation machine(options.plate, parts);
  return iterate(options, machine, world.around());
}

TEST(Iterate, StoppedAndResumedItIsTheSameRun) {
  const Options options = options_for({40, 30, 5}, 450);
  World whole;
  const State expected = attempt(options, whole);
  EXPECT_EQ(expected.iterations, 450U);
  World world;
  State state;
  int attempts = 0;
  do {
    world.asked = 0;
    world.stop_after = 1;
    state = attempt(options, world);
    ++attempts;
  } while (!finished(options, state));
  EXPECT_EQ(attempts, 5);
  EXPECT_EQ(state.field, expected.field);
  EXPECT_EQ(state.change, expected.change);
  EXPECT_EQ(state.iterations, 450U);
}

TEST(Iterate, EndsWhenNothingChanges) {
  Options options = options_for({3, 2, 5}, 1'000'000);
  World world;
  const State still = attempt(options, world);
  EXPECT_LT(still.iterations, 2000U);
  EXPECT_EQ(still.change, 0);
  options.tolerance = 1;
  World other;
  EXPECT_EQ(attempt(options, other).iterations, 100U) << "looked at once in a hundred";
}

TEST(Iterate, CheckpointsRoundTripAndDamageIsNoticed) {
  const Plate plate = {4, 3, 6};
  State state;
  state.field = initial_field(plate);
  state.iterations = 100;
  state.change = 0.5;
  state.seconds = 2.5;
  const std::string good = encode_checkpoint(plate, state);
  EXPECT_EQ(good.size(), 80 + 6 * 5 * 4U) << "as iterate.h says";
  State out;
  ASSERT_EQ(decode_checkpoint(good, plate, &out), "");
  EXPECT_EQ(out.field, state.field);
  EXPECT_EQ(out.iterations, 100U);
  EXPECT_EQ(out.change, 0.5);
  EXPECT_EQ(out.seconds, 2.5);
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    EXPECT_NE(decode_checkpoint(damaged, plate, &out), "") << at;
    EXPECT_NE(decode_checkpoint(good.substr(0, at), plate, &out), "") << at;
  }
  EXPECT_EQ(decode_checkpoint(good, {3, 4, 6}, &out), "it is of another plate");
}

TEST(Iterate, ABadCheckpointCostsTimeNotTheRank) {
  const Options options = options_for({12, 9, 5}, 300);
  World whole, world;
  const State expected = attempt(options, whole);
  world.checkpoint = "nonsense";
  EXPECT_EQ(attempt(options, world).field, expected.field);
  ASSERT_EQ(world.said.size(), 1U);
  EXPECT_THAT(world.said[0], HasSubstr("the checkpoint is not used: it is cut off"));
}

}  // namespace
}  // namespace samples::two_gpus
