#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <string>

#include "common/bytes.h"
#include "common/checked.h"
#include "common/crc32.h"
#include "common/failure.h"
#include "common/files.h"
#include "common/json.h"
#include "common/philox.h"
#include "common/text.h"

namespace samples {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The published answers: Random123, tests/kat_vectors, philox4x32 with 10 rounds.
TEST(Philox, KnownAnswers) {
  EXPECT_THAT(philox({{0, 0, 0, 0}}, 0, 0).words,
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  const std::uint32_t ones = 0xffffffff;
  EXPECT_THAT(philox({{ones, ones, ones, ones}}, ones, ones).words,
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      philox({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0).words,
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(Philox, EveryPartOfTheAddressMatters) {
  const std::uint64_t first = random_at(1, 2, 3, 4).low();
  EXPECT_EQ(first, random_at(1, 2, 3, 4).low());
  EXPECT_NE(first, random_at(1 + (1ULL << 32), 2, 3, 4).low());
  EXPECT_NE(first, random_at(1, 2 + (1ULL << 32), 3, 4).low());
  EXPECT_NE(first, random_at(1, 2, 4, 4).low());
  EXPECT_NE(first, random_at(1, 2, 3, 5).low());
}

TEST(Philox, RangesAreKept) {
  EXPECT_EQ(random_below(0, 10), 0U);
  EXPECT_EQ(random_below(UINT64_MAX, 10), 9U);
  EXPECT_EQ(random_below(UINT64_MAX, 1), 0U);
  EXPECT_GT(random_unit(0), 0.0);
  EXPECT_EQ(random_unit(UINT64_MAX), 1.0);
}

TEST(Checked, SaysWhenItDoesNotFit) {
  EXPECT_EQ((Checked(3) * 4 + 5).value(), 17U);
  EXPECT_EQ((Checked(UINT64_MAX) + 0).value(), UINT64_MAX);
  EXPECT_FALSE((Checked(UINT64_MAX) + 1).value());
  EXPECT_FALSE((Checked(1ULL << 32) * (1ULL << 32)).value());
  EXPECT_FALSE((Checked(1ULL << 32) * (1ULL << 32) * 0).value()) << "once lost, always lost";
  EXPECT_EQ(Checked(257).rounded_up_to(256).value(), 512U);
  EXPECT_EQ(Checked(256).rounded_up_to(256).value(), 256U);
  EXPECT_FALSE(Checked(UINT64_MAX).rounded_up_to(256).value());
}

TEST(Crc32, IsTheOneOfZip) {
  EXPECT_EQ(crc32("123456789", 9), 0xCBF43926U);
  EXPECT_EQ(crc32("", 0), 0U);
  const std::string text = "the quick brown fox jumps over the lazy dog";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(crc32(text.data() + cut, text.size() - cut, crc32(text.data(), cut)),
              crc32(text.data(), text.size()));
  }
}

TEST(Bytes, AreLittleEndian) {
  std::string bytes;
  put(bytes, std::uint32_t{0x01020304});
  put(bytes, -2.5);
  EXPECT_EQ(bytes.substr(0, 4), "\x04\x03\x02\x01");
  EXPECT_EQ(get<std::uint32_t>(bytes, 0), 0x01020304U);
  EXPECT_EQ(get<double>(bytes, 4), -2.5);
}

TEST(Text, Numbers) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(1234567), "1,234,567");
  EXPECT_EQ(shown_bytes(3 << 20), "3,145,728 bytes (3 MiB)");
}

TEST(Json, EscapesAndKeepsNumbers) {
  EXPECT_EQ(JsonObject().add("a\"\n", "b\\\x01").add("n", std::uint64_t{7}).done(),
            "{\n  \"a\\\"\\u000a\": \"b\\\\\\u0001\",\n  \"n\": 7\n}\n");
  EXPECT_THAT(JsonObject().add("x", 0.1).done(), HasSubstr("\"x\": 0.1\n"));
  EXPECT_THAT(JsonObject().add("x", 1.0 / 3).done(), HasSubstr("0.3333333333333333\n"));
  EXPECT_THAT(JsonObject().add("x", std::nan("")).done(), HasSubstr("\"x\": null"));
  EXPECT_THAT(JsonObject().add("x", true).done(), HasSubstr("\"x\": true"));
}

class Files : public testing::Test {
 protected:
  Files() {
    std::string pattern = testing::TempDir() + "cuda_samples_XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~Files() override {
    (void)unlink((directory_ + "/file").c_str());
    (void)rmdir(directory_.c_str());  // fails, and leaves a trace, when a temporary file was left
  }
  std::string file() const { return directory_ + "/file"; }

  std::string directory_;
};

TEST_F(Files, RoundTrip) {
  const std::string bytes(200'000, 'x');
  write_file(file(), bytes);
  EXPECT_EQ(read_file(file()), bytes);
  EXPECT_EQ(access((file() + ".tmp").c_str(), F_OK), -1);
}

TEST_F(Files, WhatCannotBeWrittenIsNotThereAndSaidSo) {
  try {
    write_file(directory_ + "/missing/file", "x");
    FAIL() << "written into a directory that does not exist";
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.code(), kFailed);
    EXPECT_THAT(failure.what(), HasSubstr("/missing/file cannot be created: No such file"));
  }
}

TEST_F(Files, AFileThatGrowsTooLargeLeavesTheOldOne) {
  write_file(file(), "old");
  rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string said;
  try {
    write_file(file(), std::string(10'000, 'x'));
  } catch (const Failure& failure) {
    said = failure.what();
  }
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  (void)std::signal(SIGXFSZ, handler);
  EXPECT_THAT(said, HasSubstr("cannot be written: File too large"));
  EXPECT_EQ(read_file(file()), "old");
  EXPECT_EQ(access((file() + ".tmp").c_str(), F_OK), -1);
}

TEST(Guarded, TellsFailuresApart) {
  EXPECT_EQ(guarded("p", [] { return 0; }), 0);
  EXPECT_EQ(guarded("p", []() -> int { throw Failure(kGpuMemory, "too little"); }), 11);
  EXPECT_EQ(guarded("p", []() -> int { throw std::bad_alloc(); }), 1);
  EXPECT_EQ(guarded("p", []() -> int { throw std::runtime_error("x"); }), 1);
}

}  // namespace
}  // namespace samples
