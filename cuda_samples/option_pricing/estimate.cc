#include "option_pricing/estimate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "common/crc32.h"
#include "common/text.h"

namespace samples::option_pricing {
namespace {

constexpr char kFirstLine[] = "pesc option_pricing 1\n", kContract[] = "contract ", kCrc[] = "crc ";

// The line that begins at `at`, without its end; moves `at` behind it.
std::string next_line(const std::string& from, std::size_t* at) {
  const std::size_t end = from.find('\n', *at);
  if (end == std::string::npos) return "";
  std::string line = from.substr(*at, end - *at);
  *at = end + 1;
  return line;
}

}  // namespace

double Estimate::standard_error() const {
  if (paths < 2) return NAN;  // a single path says nothing of its spread
  const auto n = static_cast<double>(paths);
  return std::sqrt(spread / (n - 1) / n);
}

Estimate estimate_of(const Sums& sums, std::uint64_t paths) {
  if (paths == 0) return {};
  const auto n = static_cast<double>(paths);
  return {paths, sums.values / n, std::max(0.0, sums.squares - sums.values * sums.values / n)};
}

Estimate merged(const Estimate& a, const Estimate& b) {
  if (a.paths == 0) return b;
  if (b.paths == 0) return a;
  Estimate out;
  out.paths = a.paths + b.paths;
  const auto n_a = static_cast<double>(a.paths), n_b = static_cast<double>(b.paths);
  const double n = n_a + n_b, apart = b.mean - a.mean;
  out.mean = a.mean + apart * (n_b / n);
  out.spread = a.spread + b.spread + apart * apart * (n_a * n_b / n);
  return out;
}

std::string encode(const Record& record) {
  std::string out = kFirstLine;
  out += kContract + record.contract + "\n";
  out += text("seed %llu rank %u paths %llu done %llu\n",
              static_cast<unsigned long long>(record.stream.seed), record.stream.rank,
              static_cast<unsigned long long>(record.paths),
              static_cast<unsigned long long>(record.estimate.paths));
  out += text("mean %a spread %a seconds %a\n", record.estimate.mean, record.estimate.spread,
              record.seconds);
  return out + text("crc %08x\n", crc32(out.data(), out.size()));
}

std::string decode(const std::string& encoded, Record* out) {
  const std::size_t crc = encoded.rfind(kCrc);
  if (encoded.compare(0, sizeof kFirstLine - 1, kFirstLine) != 0) {
    return "it is a file of another kind or version";
  }
  if (crc == std::string::npos || encoded.back() != '\n') return "it is cut off";
  if (encoded.substr(crc) != text("crc %08x\n", crc32(encoded.data(), crc))) return "it is damaged";
  std::size_t at = sizeof kFirstLine - 1;
  const std::string contract = next_line(encoded, &at);
  const std::string counts = next_line(encoded, &at);
  const std::string numbers = next_line(encoded, &at);
  unsigned long long seed = 0, paths = 0, done = 0;
  unsigned rank = 0;
  Record record;
  if (contract.compare(0, sizeof kContract - 1, kContract) != 0 ||
      std::sscanf(counts.c_str(), "seed %llu rank %u paths %llu done %llu", &seed, &rank, &paths,
                  &done) != 4 ||
      std::sscanf(numbers.c_str(), "mean %la spread %la seconds %la", &record.estimate.mean,
                  &record.estimate.spread, &record.seconds) != 3 ||
      done > paths) {
    return "its lines are not as they should be";
  }
  record.contract = contract.substr(sizeof kContract - 1);
  record.stream = {seed, rank};
  record.paths = paths;
  record.estimate.paths = done;
  *out = record;
  return "";
}

Estimate merge_ranks(std::vector<Record> records, std::string* trouble) {
  std::stable_sort(records.begin(), records.end(),
                   [](const Record& a, const Record& b) { return a.stream.rank < b.stream.rank; });
  Estimate all;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const std::string rank = "rank " + std::to_string(records[i].stream.rank);
    if (records[i].contract != records[0].contract) {
      *trouble = rank + " priced another contract: " + records[i].contract;
      return {};
    }
    if (records[i].estimate.paths != records[i].paths) {
      *trouble = rank + " did not finish";
      return {};
    }
    if (i > 0 && records[i].stream.rank == records[i - 1].stream.rank) {
      *trouble = rank + " is there twice: its paths would count double";
      return {};
    }
    all = merged(all, records[i].estimate);
  }
  return all;
}

}  // namespace samples::option_pricing
