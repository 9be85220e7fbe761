#include "model/ids.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace pesc {
namespace {

TEST(JobId, PrintsThirteenSortableDigits) {
  EXPECT_EQ(to_string(JobId{0}), "0000000000000");
  EXPECT_EQ(to_string(JobId{31}), "000000000000z");
  EXPECT_EQ(to_string(JobId{UINT64_MAX}), "fzzzzzzzzzzzz");
  std::string previous;
  for (uint64_t value : {0ull, 1ull, 31ull, 32ull, 1ull << 32, 1ull << 40, ~0ull}) {
    const std::string text = to_string(JobId{value});
    EXPECT_LT(previous, text);
    previous = text;
    EXPECT_EQ(parse_job_id(text).value(), JobId{value});
  }
}

TEST(JobId, ReadsWhatPeopleMisread) {
  EXPECT_EQ(parse_job_id("000000000000Z").value(), JobId{31});
  EXPECT_EQ(parse_job_id("OOOOOOOOOOOOo").value(), JobId{0});
  EXPECT_EQ(parse_job_id("00000000000IL").value(), JobId{33});
}

TEST(JobId, RefusesAnythingElse) {
  for (const char* text : {"", "1", "00000000000000", "000000000000u", "g000000000000",
                           "000000 000000", "../../../etc/", "-000000000000"}) {
    const auto id = parse_job_id(text);
    ASSERT_FALSE(id.ok()) << text;
    EXPECT_EQ(id.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(id.status().message()).find("pesc jobs"), std::string::npos);
  }
}

TEST(WorkerId, IsSixteenHexDigits) {
  EXPECT_EQ(to_string(WorkerId{0xab}), "00000000000000ab");
  EXPECT_EQ(to_string(WorkerId{UINT64_MAX}), "ffffffffffffffff");
}

TEST(AttemptKey, SaysItsParts) {
  EXPECT_EQ(to_string(AttemptKey{JobId{1}, 7, 2}), "0000000000001/rank 7/attempt 2");
}

TEST(Digest, IsSha256) {
  EXPECT_EQ(to_hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_FALSE(sha256("").is_zero());
  EXPECT_TRUE(Digest{}.is_zero());
  EXPECT_TRUE(BlobRef{}.empty());
}

TEST(Digest, HexRoundTripAndRefusal) {
  const Digest digest = sha256("x");
  EXPECT_EQ(digest_from_hex(to_hex(digest)).value(), digest);
  std::string upper = to_hex(digest);
  for (char& c : upper) c = static_cast<char>(toupper(c));
  EXPECT_EQ(digest_from_hex(upper).value(), digest);
  EXPECT_FALSE(digest_from_hex(to_hex(digest).substr(1)).ok());
  EXPECT_FALSE(digest_from_hex(std::string(64, 'g')).ok());
  EXPECT_FALSE(digest_from_hex("").ok());
}

}  // namespace
}  // namespace pesc
