#include "option_pricing/option.h"

#include <array>

#include "common/text.h"

namespace samples::option_pricing {

Model prepare(const Contract& contract, const Stream& stream) {
  const double step = contract.years / static_cast<double>(contract.steps);
  Model model = {};
  model.log_spot = std::log(contract.spot);
  model.strike = contract.strike;
  model.drift = (contract.rate - contract.volatility * contract.volatility / 2) * step;
  model.diffusion = contract.volatility * std::sqrt(step);
  model.discount = std::exp(-contract.rate * contract.years);
  model.steps = contract.steps;
  model.asian = contract.asian;
  model.call = contract.call;
  model.stream = stream;
  return model;
}

double black_scholes(const Contract& contract) {
  const auto normal = [](double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; };
  const double deviation = contract.volatility * std::sqrt(contract.years);
  const double strike = contract.strike * std::exp(-contract.rate * contract.years);
  if (deviation == 0) {
    const double gain = contract.call ? contract.spot - strike : strike - contract.spot;
    return gain > 0 ? gain : 0;
  }
  const double d1 = std::log(contract.spot / strike) / deviation + deviation / 2;
  const double d2 = d1 - deviation;
  return contract.call ? contract.spot * normal(d1) - strike * normal(d2)
                       : strike * normal(-d2) - contract.spot * normal(-d1);
}

std::string signature(const Contract& c) {
  return text("%s %s spot %a strike %a rate %a volatility %a years %a steps %llu",
              c.asian ? "asian" : "european", c.call ? "call" : "put", c.spot, c.strike, c.rate,
              c.volatility, c.years, static_cast<unsigned long long>(c.steps));
}

Sums chunk_sums(const Model& model, std::uint64_t paths, std::uint64_t chunk) {
  std::array<Sums, kLanes> lanes;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    lanes[lane] = lane_sums(model, paths, chunk, lane);
  }
  for (unsigned width = kLanes / 2; width > 0; width /= 2) {
    for (unsigned lane = 0; lane < width; ++lane) lanes[lane] = lanes[lane] + lanes[lane + width];
  }
  return lanes[0];
}

}  // namespace samples::option_pricing
