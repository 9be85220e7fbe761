#include "runtime/worker/owner/owner_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace pesc::worker::owner {
namespace {

using testing::HasSubstr;

absl::Status read(const std::string& text, Settings& settings) {
  return read_owner_table(toml::parse(text), "worker.toml", settings);
}
std::string error_of(const std::string& text) {
  Settings settings;
  const absl::Status status = read(text, settings);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << text << ": " << status;
  return std::string(status.message());
}

TEST(OwnerTable, AnEmptyOneWatchesWithTheDefaults) {
  Settings settings;
  ASSERT_TRUE(read("", settings).ok());
  EXPECT_TRUE(settings.policy.watching);
  EXPECT_EQ(settings.policy.cpu_limit, 70u);
  EXPECT_EQ(settings.policy.when_present, WhenPresent::throttle);
  EXPECT_EQ(settings.policy.throttle_percent, 10u);
  EXPECT_FALSE(settings.policy.vacate_after_ms);
}

TEST(OwnerTable, SetsWhatItNames) {
  Settings settings;
  const absl::Status status = read(R"(
enabled = true
cpu_limit = 50
cpu_counts = "all"
memory_limit = 80
gpu_memory_limit = 60
when_present = "freeze"
throttle_percent = 25
vacate_after = "1h"
idle_after = "5m"
resume_after = "0s"
hours = ["Mon-Fri 19:00-07:00", "Sat,Sun"]
outside_hours = "freeze"
ignore_users = ["backup"]
presence_command = ["/usr/local/bin/here", "--now"]
presence_every = "10s"
pause_file = "/run/pesc/pause"
root = "/host"
)",
                                   settings);
  ASSERT_TRUE(status.ok()) << status;
  const Config& config = settings.policy;
  EXPECT_EQ(config.cpu_limit, 50u);
  EXPECT_EQ(config.cpu_counts, CpuCounts::all);
  EXPECT_EQ(config.memory_limit, 80u);
  EXPECT_EQ(config.gpu_memory_limit, 60u);
  EXPECT_EQ(config.when_present, WhenPresent::freeze);
  EXPECT_EQ(config.throttle_percent, 25u);
  EXPECT_EQ(config.vacate_after_ms, 3'600'000u);
  EXPECT_EQ(config.idle_after_ms, 300'000u);
  EXPECT_EQ(config.resume_after_ms, 0u);
  EXPECT_EQ(config.hours.size(), 7u);
  EXPECT_EQ(config.outside_hours, OutsideHours::freeze);
  EXPECT_THAT(config.ignore_users, testing::ElementsAre("backup"));
  EXPECT_THAT(settings.presence_command, testing::ElementsAre("/usr/local/bin/here", "--now"));
  EXPECT_EQ(settings.presence_every_ms, 10'000u);
  EXPECT_EQ(settings.pause_file, "/run/pesc/pause");
  EXPECT_EQ(settings.root, "/host");
}

TEST(OwnerTable, VacatingTakesFiveMinutesUnlessItIsTold) {
  Settings settings;
  ASSERT_TRUE(read("when_present = \"vacate\"", settings).ok());
  EXPECT_EQ(settings.policy.vacate_after_ms, 300'000u);
  Settings at_once;
  ASSERT_TRUE(read("when_present = \"vacate\"\nvacate_after = \"0s\"", at_once).ok());
  EXPECT_EQ(at_once.policy.vacate_after_ms, 0u);
  EXPECT_THAT(error_of("when_present = \"vacate\"\nvacate_after = \"never\""),
              HasSubstr("contradicts"));
}

TEST(OwnerTable, RefusesWhatItDoesNotUnderstandByName) {
  struct Case {
    const char* text;
    const char* said;
  };
  const Case cases[] = {
      {"cpu_limits = 70", "\"owner.cpu_limits\" is not known; those of [owner] are cpu_counts"},
      {"cpu_limit = 0", "from 1 to 100"},
      {"cpu_limit = 101", "from 1 to 100"},
      {"cpu_limit = 0.7", "whole number of percent"},
      {"cpu_limit = \"70\"", "without quotes"},
      {"throttle_percent = 0", "from 1 to 100"},
      {"when_present = \"sleep\"", "one of \"throttle\", \"freeze\", \"vacate\", \"ignore\""},
      {"when_present = 1", "one of"},
      {"outside_hours = \"throttle\"", "one of \"freeze\", \"vacate\""},
      {"idle_after = 900", "in quotes"},
      {"idle_after = \"1s\"", "from 10.0s"},
      {"idle_after = \"soon\"", "owner.idle_after"},
      {"vacate_after = \"-1s\"", "owner.vacate_after"},
      {"hours = \"Mon\"", "must be a list"},
      {"hours = []", "would never work"},
      {"hours = [\"Mon 19:00\"]", "HH:MM-HH:MM"},
      {"presence_command = \"who\"", "must be a list"},
      {"presence_command = [\"\"]", "none of them empty"},
      {"ignore_users = [1]", "texts in quotes only"},
      {"pause_file = \"pause\"", "absolute path"},
      {"enabled = \"yes\"", "true or false"},
  };
  for (const Case& one : cases) EXPECT_THAT(error_of(one.text), HasSubstr(one.said)) << one.text;
}

}  // namespace
}  // namespace pesc::worker::owner
