#include <gtest/gtest.h>

#include "model/job_spec.h"
#include "model/outcome.h"

namespace pesc {
namespace {

TEST(Bytes, Parse) {
  EXPECT_EQ(parse_bytes("4096").value(), 4096u);
  EXPECT_EQ(parse_bytes("0").value(), 0u);
  EXPECT_EQ(parse_bytes("1500M").value(), 1500ull << 20);
  EXPECT_EQ(parse_bytes("2GiB").value(), 2ull << 30);
  EXPECT_EQ(parse_bytes("2 gib").value(), 2ull << 30);
  EXPECT_EQ(parse_bytes("1KB").value(), 1000u);
  EXPECT_EQ(parse_bytes("3MB").value(), 3'000'000u);
  EXPECT_EQ(parse_bytes("1.5G").value(), 3ull << 29);
  EXPECT_EQ(parse_bytes("0.1KB").value(), 100u);
  EXPECT_EQ(parse_bytes(" 7b ").value(), 7u);
  EXPECT_EQ(parse_bytes("18446744073709551615").value(), UINT64_MAX);
  EXPECT_EQ(parse_bytes("15E").value(), 15ull << 60);
}

TEST(Bytes, Refused) {
  for (const char* text :
       {"", "-1", "M", "1X", "1.M", ".5G", "1e9", "0x10", "nan", "inf", "1 2", "1GG",
        "18446744073709551616", "16E", "99999999999999999999999T", "1,5G", "1GiBs", "+5"}) {
    EXPECT_FALSE(parse_bytes(text).ok()) << text;
  }
}

TEST(Bytes, Format) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(1024), "1 KiB");
  EXPECT_EQ(format_bytes(3ull << 29), "1.5 GiB");
  EXPECT_EQ(format_bytes((1ull << 20) - 1), "1 MiB");
  EXPECT_EQ(format_bytes(UINT64_MAX), "16 EiB");
}

TEST(Duration, Parse) {
  EXPECT_EQ(parse_duration_ms("90").value(), 90'000u);
  EXPECT_EQ(parse_duration_ms("0").value(), 0u);
  EXPECT_EQ(parse_duration_ms("500ms").value(), 500u);
  EXPECT_EQ(parse_duration_ms("10s").value(), 10'000u);
  EXPECT_EQ(parse_duration_ms("15m").value(), 900'000u);
  EXPECT_EQ(parse_duration_ms("2h").value(), 7'200'000u);
  EXPECT_EQ(parse_duration_ms("1d").value(), 86'400'000u);
  EXPECT_EQ(parse_duration_ms("1h30m").value(), 5'400'000u);
  EXPECT_EQ(parse_duration_ms("1.5h").value(), 5'400'000u);
  EXPECT_EQ(parse_duration_ms("1d2h3m4s5ms").value(), 93'784'005u);
}

TEST(Duration, Refused) {
  for (const char* text :
       {"", "-1", "s", "5x", "1h30", "30m1h", "1h1h", "1 h", "1e3", "nan", "99999999999999999999",
        "18446744073709551615d", "10s-", "1,5s", "18446744073709551615ms1s"}) {
    EXPECT_FALSE(parse_duration_ms(text).ok()) << text;
  }
}

TEST(Duration, Format) {
  EXPECT_EQ(format_duration_ms(0), "0ms");
  EXPECT_EQ(format_duration_ms(850), "850ms");
  EXPECT_EQ(format_duration_ms(3'200), "3.2s");
  EXPECT_EQ(format_duration_ms(59'999), "59.9s");
  EXPECT_EQ(format_duration_ms(245'000), "4m05s");
  EXPECT_EQ(format_duration_ms(7'380'000), "2h03m");
  EXPECT_EQ(format_duration_ms(3 * 86'400'000ull + 4 * 3'600'000), "3d04h");
  EXPECT_EQ(format_duration_ms(UINT64_MAX), "213503982334d14h");
}

TEST(EndReason, NamesRoundTrip) {
  for (int i = 0; i <= static_cast<int>(EndReason::revoked); ++i) {
    const auto reason = static_cast<EndReason>(i);
    EXPECT_EQ(parse_end_reason(to_string(reason)).value(), reason);
  }
  EXPECT_EQ(to_string(EndReason::exit_code), "exit_code");
  EXPECT_EQ(to_string(EndReason::inputs_unavailable), "inputs_unavailable");
  EXPECT_EQ(to_string(static_cast<EndReason>(99)), "unknown");
  EXPECT_FALSE(parse_end_reason("").ok());
  EXPECT_FALSE(parse_end_reason("unknown").ok());
  EXPECT_EQ(to_string(RankState::cancelled), "cancelled");
  EXPECT_EQ(to_string(JobState::waiting), "waiting");
}

TEST(EndReason, OnlyTheProgramsOwnFailuresUseUpARetry) {
  for (EndReason reason :
       {EndReason::exit_code, EndReason::signal, EndReason::cannot_start, EndReason::time_limit,
        EndReason::output_limit, EndReason::out_of_memory}) {
    EXPECT_TRUE(uses_up_a_retry(reason)) << to_string(reason);
  }
  for (EndReason reason :
       {EndReason::succeeded, EndReason::inputs_unavailable, EndReason::disk_full,
        EndReason::vacated, EndReason::worker_lost, EndReason::cancelled, EndReason::revoked}) {
    EXPECT_FALSE(uses_up_a_retry(reason)) << to_string(reason);
  }
}

}  // namespace
}  // namespace pesc
