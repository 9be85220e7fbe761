// The price of an option by Monte Carlo: the payoff of one path, on the CPU and on the GPU.
//
// The share follows a geometric Brownian motion. European options pay by the price at the end,
// Asian ones by the arithmetic mean of the prices at `steps` equally spaced times.
//
// Each path is a pure function of (seed, rank, path): step pairs take the Philox numbers at counter
// (path, pair of steps, rank) under the key `seed`. So a rank's paths are the same on every
// attempt, on any number of threads, and no two ranks share one, with the same seed or with
// different ones.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "common/host_device.h"
#include "common/philox.h"

namespace samples::option_pricing {

struct Contract {
  double spot = 100, strike = 100, rate = 0.05, volatility = 0.2, years = 1;
  std::uint64_t steps = 1;  // 1 for European options
  bool asian = false, call = true;
};

struct Stream {
  std::uint64_t seed = 0;
  std::uint32_t rank = 0;
};

// The contract with what all paths share computed once.
struct Model {
  double log_spot, strike, drift, diffusion, discount;
  std::uint64_t steps;
  bool asian, call;
  Stream stream;
};

Model prepare(const Contract& contract, const Stream& stream);

// The exact price of a European option (Black and Scholes, 1973).
double black_scholes(const Contract& contract);

// All of the contract in a line, exactly: results of different contracts must not be merged.
std::string signature(const Contract& contract);

PESC_HOST_DEVICE inline double discounted_payoff(const Model& model, std::uint64_t path) {
  constexpr double two_pi = 6.283185307179586;
  double log_price = model.log_spot, sum = 0;
  for (std::uint64_t step = 0; step < model.steps; step += 2) {
    const Random128 bits =
        random_at(model.stream.seed, path, static_cast<std::uint32_t>(step / 2), model.stream.rank);
    const double radius = sqrt(-2 * log(random_unit(bits.low())));  // Box and Muller
    const double angle = two_pi * random_unit(bits.high());
    log_price += model.drift + model.diffusion * (radius * cos(angle));
    if (model.asian) sum += exp(log_price);
    if (step + 1 == model.steps) break;
    log_price += model.drift + model.diffusion * (radius * sin(angle));
    if (model.asian) sum += exp(log_price);
  }
  const double price = model.asian ? sum / static_cast<double>(model.steps) : exp(log_price);
  const double gain = model.call ? price - model.strike : model.strike - price;
  return gain > 0 ? model.discount * gain : 0;
}

// Paths are summed in chunks of a fixed size and order, however many threads there are: a chunk's
// 256 lanes each add every 256th path, then are added in pairs. Floating-point sums depend on their
// order; so the result does not depend on the grid.
constexpr std::uint64_t kChunk = 4096;
constexpr unsigned kLanes = 256;

struct Sums {
  double values = 0, squares = 0;
};

PESC_HOST_DEVICE inline Sums operator+(const Sums& a, const Sums& b) {
  return {a.values + b.values, a.squares + b.squares};
}

PESC_HOST_DEVICE inline Sums lane_sums(const Model& model, std::uint64_t paths, std::uint64_t chunk,
                                       unsigned lane) {
  Sums sums;
  for (std::uint64_t i = lane; i < kChunk; i += kLanes) {
    const std::uint64_t path = chunk * kChunk + i;
    if (path >= paths) break;
    const double payoff = discounted_payoff(model, path);
    sums = sums + Sums{payoff, payoff * payoff};
  }
  return sums;
}

// A chunk's sums, on the CPU.
Sums chunk_sums(const Model& model, std::uint64_t paths, std::uint64_t chunk);

}  // namespace samples::option_pricing
