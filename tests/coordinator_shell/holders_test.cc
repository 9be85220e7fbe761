#include "runtime/coordinator/shell/holders.h"

#include <gtest/gtest.h>

namespace pesc::coordinator {
namespace {

const Digest kBlob = sha256("a blob");
const Digest kOther = sha256("another");

bool anybody(uint64_t) { return true; }

std::optional<uint64_t> choose(Holders& holders, uint64_t session) {
  return holders.choose(kBlob, session, true, anybody);
}

TEST(Holders, TheFirstReadsFromTheCoordinatorAndTheOthersMakeATree) {
  Holders holders;
  EXPECT_EQ(choose(holders, 1), std::nullopt);
  EXPECT_EQ(choose(holders, 2), 1u);
  EXPECT_EQ(choose(holders, 3), 1u);
  EXPECT_EQ(choose(holders, 4), 2u) << "1 has two readers";
  EXPECT_EQ(choose(holders, 5), 3u) << "as close to the root as 2, with fewer readers";
}

TEST(Holders, WhoHasAllOfItIsTheFirstChoice) {
  Holders holders;
  choose(holders, 1);
  choose(holders, 2);
  holders.ended(kBlob, 2, true, true);
  EXPECT_EQ(choose(holders, 3), 2u);
  EXPECT_EQ(choose(holders, 4), 2u);
  EXPECT_EQ(choose(holders, 5), 1u);
  holders.ended(kBlob, 3, true, true);
  holders.ended(kBlob, 4, true, true);
  EXPECT_EQ(choose(holders, 6), 2u) << "its readers have gone";
}

TEST(Holders, NobodyIsSentToWhomItFeeds) {
  Holders holders;
  choose(holders, 1);
  EXPECT_EQ(choose(holders, 2), 1u);
  EXPECT_EQ(choose(holders, 3), 1u);
  EXPECT_EQ(choose(holders, 4), 2u);
  // 2 has lost 1, and may be sent to 3, which does not hang on it, but not to 4.
  const auto without_1 = [](uint64_t holder) { return holder != 1; };
  EXPECT_EQ(holders.choose(kBlob, 2, true, without_1), 3u);
  EXPECT_EQ(holders.choose(kBlob, 3, true, without_1), std::nullopt);
}

TEST(Holders, ThoseThatDoNotPassOnAreNotNamed) {
  Holders holders;
  EXPECT_EQ(holders.choose(kBlob, 1, false, anybody), std::nullopt);
  holders.ended(kBlob, 1, true, false);
  EXPECT_EQ(choose(holders, 2), std::nullopt);
  EXPECT_EQ(holders.choose(kBlob, 1, false, anybody), 2u);
}

TEST(Holders, OneHasEightReadersAtMost) {
  Holders holders;
  choose(holders, 1);
  holders.ended(kBlob, 1, true, true);
  for (uint64_t session = 2; session < 10; ++session) {
    EXPECT_EQ(holders.choose(kBlob, session, false, anybody), 1u);
  }
  EXPECT_EQ(holders.choose(kBlob, 10, false, anybody), std::nullopt);
  holders.forget(5);
  EXPECT_EQ(holders.choose(kBlob, 10, false, anybody), 1u);
}

TEST(Holders, NothingIsKeptOfSessionsThatAreOver) {
  Holders holders;
  for (uint64_t session = 1; session < 50; ++session) {
    choose(holders, session);
    holders.choose(kOther, session, true, anybody);
    holders.ended(kOther, session, session % 2 == 0, true);
  }
  EXPECT_EQ(holders.sessions(), 49u);
  for (uint64_t session = 1; session < 50; ++session) holders.forget(session);
  EXPECT_EQ(holders.sessions(), 0u);
  EXPECT_EQ(holders.blobs(), 0u);
  EXPECT_EQ(choose(holders, 1), std::nullopt);
}

TEST(Holders, OfASessionTheLatestBlobsAreRemembered) {
  Holders holders;
  for (size_t i = 0; i <= Holders::kMostBlobs; ++i) {
    const Digest digest = sha256(std::to_string(i));
    holders.choose(digest, 1, true, anybody);
    holders.ended(digest, 1, true, true);
  }
  EXPECT_EQ(holders.blobs(), Holders::kMostBlobs);
  EXPECT_EQ(holders.choose(sha256("0"), 2, true, anybody), std::nullopt);
  EXPECT_EQ(holders.choose(sha256("1"), 2, true, anybody), 1u);
}

TEST(Holders, WhatFailedToComeIsNotOffered) {
  Holders holders;
  choose(holders, 1);
  EXPECT_EQ(choose(holders, 2), 1u);
  EXPECT_EQ(holders.source_of(kBlob, 2), 1u);
  holders.ended(kBlob, 1, false, true);
  EXPECT_EQ(choose(holders, 2), std::nullopt);
  EXPECT_EQ(holders.source_of(kBlob, 2), 0u);
}

}  // namespace
}  // namespace pesc::coordinator
