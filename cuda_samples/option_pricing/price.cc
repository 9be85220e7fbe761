#include "option_pricing/price.h"

#include <algorithm>
#include <cmath>

#include "common/arguments.h"
#include "common/failure.h"
#include "common/text.h"
#include "pesc/rank.h"

namespace samples::option_pricing {
namespace {

constexpr std::uint64_t kMaxPaths = 1'000'000'000'000'000, kMaxSteps = 1'000'000;

std::uint64_t chunk_count(std::uint64_t paths) { return (paths + kChunk - 1) / kChunk; }

}  // namespace

bool parse_options(int argc, char** argv, Options* out) {
  Contract& contract = out->contract;
  std::string style = "european", type = "call";
  std::uint64_t steps = 252;
  Arguments arguments("option_pricing",
                      "The price of an option, and its standard error, by Monte Carlo on a GPU.\n"
                      "Each rank has paths of its own. Writes estimate.txt and result.json to the\n"
                      "output directory; --merge adds the ranks' estimates up.");
  arguments.number("paths", &out->paths, 1, kMaxPaths, "paths of this rank");
  arguments.choice("style", &style, {"european", "asian"}, "asian: by the mean price");
  arguments.choice("type", &type, {"call", "put"}, "the right to buy or to sell");
  arguments.real("spot", &contract.spot, 1e-6, 1e9, "price now");
  arguments.real("strike", &contract.strike, 0, 1e9, "price agreed on");
  arguments.real("rate", &contract.rate, -1, 1, "riskless interest per year, continuous");
  arguments.real("volatility", &contract.volatility, 0, 10, "per square root of a year");
  arguments.real("years", &contract.years, 1e-6, 1000, "until the option ends");
  arguments.number("steps", &steps, 1, kMaxSteps, "asian: times at which the price is looked at");
  arguments.seed(&out->stream.seed);
  arguments.flag("verify", &out->verify,
                 "compare a sample of the paths with the CPU, a European price with the exact one");
  arguments.flag("cpu", &out->cpu, "run the same steps on one core of the CPU");
  arguments.number("checkpoint-seconds", &out->checkpoint_seconds, 0, 1'000'000,
                   "between two checkpoints; 0: only when told to stop");
  arguments.word("merge", &out->merge,
                 "print the estimate of all DIRECTORY/rank-*/estimate.txt together; needs no GPU");
  if (!arguments.parse(argc, argv)) return false;
  contract.asian = style == "asian";
  contract.call = type == "call";
  contract.steps = contract.asian ? steps : 1;
  out->stream.rank = static_cast<std::uint32_t>(pesc_rank());
  return true;
}

Record price(const Options& options, Machine& machine, const Surroundings& around) {
  Record record;
  record.contract = signature(options.contract);
  record.stream = options.stream;
  record.paths = options.paths;
  std::string bytes;
  if (around.load(bytes)) {
    Record saved;
    std::string trouble = decode(bytes, &saved);
    if (trouble.empty() && !saved.same_work(record)) trouble = "it is of another calculation";
    if (trouble.empty() && saved.estimate.paths % kChunk != 0 &&
        saved.estimate.paths != saved.paths) {
      trouble = "it does not end with a chunk";
    }
    if (trouble.empty()) {
      record = saved;
    } else {
      around.say("the checkpoint is not used: " + trouble + "; starting from the beginning");
    }
  }
  const double before = record.seconds, started = around.seconds();
  double saved = started;
  std::vector<Sums> chunks;
  for (std::uint64_t next = chunk_count(record.estimate.paths); next < chunk_count(options.paths);
       next += chunks.size()) {
    const bool stop = around.stop_requested();
    const auto period = static_cast<double>(options.checkpoint_seconds);
    if (stop || (period > 0 && around.seconds() - saved >= period)) {
      saved = around.seconds();
      record.seconds = before + saved - started;
      around.save(encode(record));
      if (stop) return record;
    }
    chunks.assign(std::min(machine.batch(), chunk_count(options.paths) - next), Sums());
    machine.run(next, chunks);
    for (std::uint64_t i = 0; i < chunks.size(); ++i) {
      const std::uint64_t paths = std::min(kChunk, options.paths - (next + i) * kChunk);
      record.estimate = merged(record.estimate, estimate_of(chunks[i], paths));
    }
    around.progress(static_cast<double>(record.estimate.paths) /
                    static_cast<double>(options.paths));
  }
  record.seconds = before + around.seconds() - started;
  return record;
}

std::string check(const Options& options, Machine& machine, const Estimate& estimate) {
  const Model model = prepare(options.contract, options.stream);
  const std::uint64_t count = chunk_count(options.paths);
  // Some from the beginning, some from the end: a handful of chunks is 100,000 paths.
  const std::uint64_t sample = std::min<std::uint64_t>(count, 12);
  for (const std::uint64_t first : {std::uint64_t{0}, count - sample}) {
    std::vector<Sums> found(sample);
    machine.run(first, found);
    for (std::uint64_t i = 0; i < sample; ++i) {
      const Sums expected = chunk_sums(model, options.paths, first + i);
      // The same paths; logarithms and cosines of CPU and GPU differ in their last bits.
      if (!(std::abs(found[i].values - expected.values) <= 1e-9 * (1 + expected.values))) {
        return "chunk " + std::to_string(first + i) +
               text(" sums to %.17g on the GPU and to %.17g on the CPU", found[i].values,
                    expected.values);
      }
    }
  }
  const double exact = black_scholes(options.contract);
  const double apart = std::abs(estimate.mean - exact), error = estimate.standard_error();
  // Chance alone does this once in 500 million runs. The last term: rounding, where nothing varies.
  if (!options.contract.asian && estimate.paths >= 10'000 &&
      !(apart <= 6 * error + 1e-9 * (1 + exact))) {
    return text("%.9g is %.1f standard errors from the exact price, %.9g", estimate.mean,
                apart / error, exact);
  }
  return "";
}

}  // namespace samples::option_pricing
