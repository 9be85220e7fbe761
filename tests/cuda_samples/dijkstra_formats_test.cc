#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "common/bytes.h"
#include "common/crc32.h"
#include "common/files.h"
#include "dijkstra/formats.h"

namespace samples::dijkstra {
namespace {

class Distances : public testing::Test {
 protected:
  Distances() {
    std::string pattern = testing::TempDir() + "distances_XXXXXX";
    path_ = std::string(mkdtemp(pattern.data())) + "/distances.bin";
  }
  ~Distances() override {
    (void)unlink(path_.c_str());
    (void)rmdir(path_.substr(0, path_.rfind('/')).c_str());
  }

  std::string written(const std::vector<std::uint64_t>& distances) {
    const GraphSpec spec = {UINT64_MAX, distances.size(), 8, 1000};
    write_distances(path_, spec, 2, distances, summarize(distances));
    return read_file(path_);
  }

  std::string path_;
};

TEST_F(Distances, RoundTripInFourBytes) {
  const std::vector<std::uint64_t> distances = {5, UINT64_MAX, 0, UINT32_MAX - 1};
  const std::string bytes = written(distances);
  EXPECT_EQ(bytes.size(), 64 + 4 * 4U);
  EXPECT_EQ(get<std::uint32_t>(bytes, 64 + 4), UINT32_MAX) << "unreachable";
  DistancesFile file;
  ASSERT_EQ(read_distances(bytes, &file), "");
  EXPECT_EQ(file.distances, distances);
  EXPECT_EQ(file.source, 2U);
  EXPECT_EQ(file.spec, (GraphSpec{UINT64_MAX, 4, 8, 1000}));
}

TEST_F(Distances, RoundTripInEightBytes) {
  const std::vector<std::uint64_t> distances = {0, UINT32_MAX, UINT64_MAX, 1ULL << 60};
  const std::string bytes = written(distances);
  EXPECT_EQ(bytes.size(), 64 + 4 * 8U);
  DistancesFile file;
  ASSERT_EQ(read_distances(bytes, &file), "");
  EXPECT_EQ(file.distances, distances);
}

TEST_F(Distances, MoreThanAPiece) {
  std::vector<std::uint64_t> distances(300'001);
  for (std::size_t v = 0; v < distances.size(); ++v) distances[v] = v * 3;
  DistancesFile file;
  ASSERT_EQ(read_distances(written(distances), &file), "");
  EXPECT_EQ(file.distances, distances);
}

TEST_F(Distances, HeaderAsDocumented) {
  const std::string bytes = written({0, 7});
  EXPECT_EQ(bytes.substr(0, 8), "PESCDIST");
  EXPECT_EQ(get<std::uint32_t>(bytes, 8), 1U);
  EXPECT_EQ(get<std::uint32_t>(bytes, 12), 4U);
  EXPECT_EQ(get<std::uint64_t>(bytes, 16), 2U);
  EXPECT_EQ(get<std::uint64_t>(bytes, 24), 2U);
  EXPECT_EQ(get<std::uint64_t>(bytes, 32), UINT64_MAX);
  EXPECT_EQ(get<std::uint64_t>(bytes, 40), 8U);
  EXPECT_EQ(get<std::uint64_t>(bytes, 48), 1000U);
  EXPECT_EQ(get<std::uint32_t>(bytes, 56), crc32(bytes.data() + 64, 8));
  EXPECT_EQ(get<std::uint32_t>(bytes, 60), crc32(bytes.data(), 60));
  EXPECT_EQ(summarize({0, 7}).checksum, get<std::uint32_t>(bytes, 56));
}

TEST_F(Distances, DamageIsNoticed) {
  const std::string bytes = written({0, 7, 9, UINT64_MAX});
  DistancesFile file;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    EXPECT_NE(read_distances(damaged, &file), "") << at;
    EXPECT_NE(read_distances(bytes.substr(0, at), &file), "") << at;
  }
  EXPECT_NE(read_distances(bytes + "1234", &file), "");
}

TEST_F(Distances, Summary) {
  const DistancesSummary summary = summarize({0, 4, UINT64_MAX, 9});
  EXPECT_EQ(summary.reached, 3U);
  EXPECT_EQ(summary.max_distance, 9U);
  EXPECT_EQ(summary.width, 4U);
  EXPECT_EQ(summarize({UINT32_MAX - 1ULL}).width, 4U);
  EXPECT_EQ(summarize({UINT32_MAX}).width, 8U) << "the largest of 32 bits means unreachable";
}

}  // namespace
}  // namespace samples::dijkstra
