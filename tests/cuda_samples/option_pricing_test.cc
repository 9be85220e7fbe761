#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "option_pricing/estimate.h"
#include "option_pricing/machine.h"
#include "option_pricing/option.h"
#include "option_pricing/price.h"
#include "tests/cuda_samples/world.h"

namespace samples::option_pricing {
namespace {

using testing::HasSubstr;

// The CPU with batches of another size.
class Batches : public Emulation {
 public:
  Batches(const Options& options, std::uint64_t batch)
      : Emulation(prepare(options.contract, options.stream), options.paths), batch_(batch) {}
  std::uint64_t batch() const override { return batch_; }

 private:
  std::uint64_t batch_;
};

Options european(std::uint64_t paths) {
  Options options;
  options.paths = paths;
  options.stream = {7, 0};
  options.checkpoint_seconds = 0;
  return options;
}

Record priced(const Options& options, World& world, std::uint64_t batch = 3) {
  Batches machine(options, batch);
  return price(options, machine, world.around());
}

TEST(BlackScholes, KnownPrices) {
  Contract
      contract;  // Hull, "Options, Futures, and Other Derivatives", example 15.6: 4.76 and 0.81
  contract.spot = 42;
  contract.strike = 40;
  contract.rate = 0.1;
  contract.volatility = 0.2;
  contract.years = 0.5;
  EXPECT_NEAR(black_scholes(contract), 4.7594, 1e-4);
  const double call = black_scholes(contract);
  contract.call = false;
  EXPECT_NEAR(black_scholes(contract), 0.8086, 1e-4);
  EXPECT_NEAR(call - black_scholes(contract), 42 - 40 * std::exp(-0.05), 1e-12) << "parity";
  contract.volatility = 0;
  EXPECT_EQ(black_scholes(contract), 0);
}

TEST(MonteCarlo, EuropeanPricesAreTheExactOnes) {
  for (const bool call : {true, false}) {
    Options options = european(200'000);
    options.contract.call = call;
    World world;
    const Estimate estimate = priced(options, world).estimate;
    EXPECT_EQ(estimate.paths, 200'000U);
    EXPECT_NEAR(estimate.mean, black_scholes(options.contract), 5 * estimate.standard_error());
    EXPECT_NEAR(estimate.standard_error(), call ? 0.0329 : 0.0193, 0.001);
  }
}

TEST(MonteCarlo, AnAsianOptionOfOneStepIsEuropean) {
  Options options = european(5000);
  World world;
  const double european_price = priced(options, world).estimate.mean;
  options.contract.asian = true;
  World other;
  EXPECT_NEAR(priced(options, other).estimate.mean, european_price, 1e-9);
}

TEST(MonteCarlo, WithoutVolatilityThereIsNoChance) {
  Options options = european(5000);
  options.contract.volatility = 0;
  options.contract.asian = true;
  options.contract.steps = 2;
  World world;
  const Estimate estimate = priced(options, world).estimate;
  const double mean = (100 * std::exp(0.025) + 100 * std::exp(0.05)) / 2;
  EXPECT_NEAR(estimate.mean, std::exp(-0.05) * (mean - 100), 1e-9);
  EXPECT_NEAR(estimate.standard_error(), 0, 1e-6);
}

// Independent of how the work is cut, bit for bit: of batches, and of stops and restarts.
TEST(MonteCarlo, BatchesAndRestartsChangeNothing) {
  Options options = european(50'001);  // the last chunk is not full
  World whole;
  const Record expected = priced(options, whole);
  for (const std::uint64_t batch : {1ULL, 5ULL, 1000ULL}) {
    World world;
    const Record record = priced(options, world, batch);
    EXPECT_EQ(record.estimate.mean, expected.estimate.mean);
    EXPECT_EQ(record.estimate.spread, expected.estimate.spread);
  }
  World world;
  Record record;
  int attempts = 0;
  do {
    world.asked = 0;
    world.stop_after = 1;
    record = priced(options, world, 2);
    ++attempts;
  } while (record.estimate.paths != options.paths);
  EXPECT_EQ(attempts, 7) << "13 chunks, two in each attempt";
  EXPECT_EQ(record.estimate.mean, expected.estimate.mean);
  EXPECT_EQ(record.estimate.spread, expected.estimate.spread);
  EXPECT_TRUE(world.said.empty());
}

TEST(MonteCarlo, RanksHavePathsOfTheirOwnWithTheSameSeedToo) {
  const Contract contract;
  const Model zero = prepare(contract, {7, 0}), one = prepare(contract, {7, 1}),
              other = prepare(contract, {8, 0});
  int same = 0;
  for (std::uint64_t path = 0; path < 1000; ++path) {
    const double payoff = discounted_payoff(zero, path);
    if (payoff == 0) continue;  // many end out of the money
    same += payoff == discounted_payoff(one, path) || payoff == discounted_payoff(other, path);
  }
  EXPECT_EQ(same, 0);
}

TEST(MonteCarlo, PathsBeyondTheLastAreNotCounted) {
  const Model model = prepare(Contract(), {7, 0});
  const Sums all = chunk_sums(model, kChunk, 0), some = chunk_sums(model, 10, 0);
  double sum = 0;
  for (std::uint64_t path = 0; path < 10; ++path) sum += discounted_payoff(model, path);
  EXPECT_NEAR(some.values, sum, 1e-9);
  EXPECT_GT(all.values, some.values);
}

TEST(MonteCarlo, ABadCheckpointCostsTimeNotTheRank) {
  const Options options = european(20'000);
  World whole;
  const Record expected = priced(options, whole);
  World world;
  world.stop_after = 1;
  ASSERT_LT(priced(options, world, 1).estimate.paths, options.paths);
  world.stop_after = -1;
  const std::string good = *world.checkpoint;
  world.checkpoint = good.substr(0, good.size() - 3);
  EXPECT_EQ(priced(options, world).estimate.mean, expected.estimate.mean);
  ASSERT_EQ(world.said.size(), 1U);
  EXPECT_THAT(world.said[0], HasSubstr("the checkpoint is not used: it is cut off"));
  Options other = options;
  other.contract.strike = 90;
  world.checkpoint = good;
  EXPECT_EQ(priced(other, world).estimate.paths, other.paths);
  ASSERT_EQ(world.said.size(), 2U);
  EXPECT_THAT(world.said[1], HasSubstr("it is of another calculation"));
}

TEST(Check, FindsAMachineThatErrs) {
  class Wrong : public Emulation {
   public:
    using Emulation::Emulation;
    void run(std::uint64_t first, std::vector<Sums>& chunks) override {
      Emulation::run(first, chunks);
      chunks.back().values *= 1 + 1e-8;
    }
  };
  const Options options = european(20'000);
  World world;
  const Estimate estimate = priced(options, world).estimate;
  Batches right(options, 1);
  EXPECT_EQ(check(options, right, estimate), "");
  Wrong wrong(prepare(options.contract, options.stream), options.paths);
  EXPECT_THAT(check(options, wrong, estimate), HasSubstr("chunk 4 sums to"));
  Estimate far = estimate;
  far.mean += 7 * far.standard_error();
  EXPECT_THAT(check(options, right, far), HasSubstr("standard errors from the exact price"));
}

TEST(Estimates, MergedAreThoseOfAllTogether) {
  const double numbers[] = {3, 1, 4, 1, 5, 9, 2, 6};
  Sums all;
  for (const double x : numbers) all = all + Sums{x, x * x};
  const Estimate expected = estimate_of(all, 8);
  EXPECT_NEAR(expected.mean, 3.875, 1e-12);
  EXPECT_NEAR(expected.standard_error(), std::sqrt(52.875 / 7 / 8), 1e-12);
  Estimate together;
  for (const double x : numbers) together = merged(together, estimate_of({x, x * x}, 1));
  EXPECT_EQ(together.paths, 8U);
  EXPECT_NEAR(together.mean, expected.mean, 1e-12);
  EXPECT_NEAR(together.spread, expected.spread, 1e-12);
  EXPECT_TRUE(std::isnan(estimate_of({1, 1}, 1).standard_error()));
}

Record finished_record(std::uint32_t rank) {
  Record record;
  record.contract = signature(Contract());
  record.stream = {7, rank};
  record.paths = record.estimate.paths = 100;
  record.estimate.mean = 1.0 / 3 + rank;
  record.estimate.spread = 2.5e-7;
  record.seconds = 1.5;
  return record;
}

TEST(Records, RoundTripExactly) {
  const Record record = finished_record(3);
  Record out;
  ASSERT_EQ(decode(encode(record), &out), "");
  EXPECT_TRUE(out.same_work(record));
  EXPECT_EQ(out.estimate.mean, record.estimate.mean);
  EXPECT_EQ(out.estimate.spread, record.estimate.spread);
  EXPECT_EQ(out.estimate.paths, 100U);
  EXPECT_EQ(out.seconds, 1.5);
}

TEST(Records, DamageIsNoticed) {
  const std::string good = encode(finished_record(3));
  Record out;
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    EXPECT_NE(decode(damaged, &out), "") << at;
    EXPECT_NE(decode(good.substr(0, at), &out), "") << at;
  }
}

TEST(Records, RanksMergeInTheirOrder) {
  std::string trouble;
  const Estimate forward =
      merge_ranks({finished_record(0), finished_record(1), finished_record(10)}, &trouble);
  const Estimate backward =
      merge_ranks({finished_record(10), finished_record(1), finished_record(0)}, &trouble);
  EXPECT_EQ(trouble, "");
  EXPECT_EQ(forward.paths, 300U);
  EXPECT_NEAR(forward.mean, 4.0, 1e-12);
  EXPECT_EQ(forward.mean, backward.mean);
  EXPECT_EQ(forward.spread, backward.spread);
}

TEST(Records, WhatDoesNotBelongTogetherIsRefused) {
  std::string trouble;
  (void)merge_ranks({finished_record(2), finished_record(2)}, &trouble);
  EXPECT_THAT(trouble, HasSubstr("rank 2 is there twice"));
  Record other = finished_record(1);
  other.contract += "x";
  trouble.clear();
  (void)merge_ranks({finished_record(0), other}, &trouble);
  EXPECT_THAT(trouble, HasSubstr("rank 1 priced another contract"));
  other = finished_record(1);
  other.paths = 200;
  trouble.clear();
  (void)merge_ranks({finished_record(0), other}, &trouble);
  EXPECT_EQ(trouble, "rank 1 did not finish");
}

}  // namespace
}  // namespace samples::option_pricing
