// A mean with its error, that can be added to another one; and the text file that holds a rank's.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "option_pricing/option.h"

namespace samples::option_pricing {

struct Estimate {
  std::uint64_t paths = 0;
  double mean = 0;
  double spread = 0;  // the sum of squared differences from the mean

  double standard_error() const;
};

// Of a chunk with so many paths.
Estimate estimate_of(const Sums& sums, std::uint64_t paths);

// Chan, Golub and LeVeque, 1979. To the last bit it depends on the order: chunks are merged in
// their order, ranks in theirs.
Estimate merged(const Estimate& a, const Estimate& b);

// A rank's result, finished (estimate.txt) or under way (the checkpoint):
//   pesc option_pricing 1
//   contract european call spot 0x1.9p+6 ...
//   seed 7 rank 3 paths 1000000 done 1000000
//   mean 0x1.4e... spread 0x1.8c... seconds 0x1.2p+1
//   crc 89abcdef                          (CRC-32 of the lines before)
struct Record {
  std::string contract;
  Stream stream;
  std::uint64_t paths = 0;
  Estimate estimate;  // of the first estimate.paths paths
  double seconds = 0;

  bool same_work(const Record& other) const {
    return contract == other.contract && stream.seed == other.stream.seed &&
           stream.rank == other.stream.rank && paths == other.paths;
  }
};

std::string encode(const Record& record);

// What is wrong with the text, in words; nothing when it is fine.
std::string decode(const std::string& encoded, Record* out);

// All ranks' together, in rank order. `trouble`: why they do not belong together; empty if they do.
Estimate merge_ranks(std::vector<Record> records, std::string* trouble);

}  // namespace samples::option_pricing
