// The journal on the simulated disk: a crash at each of its writes loses nothing that was
// committed, and leaves no half of a transaction.
#include "runtime/coordinator/shell/journal.h"

#include <gtest/gtest.h>

#include "tests/sim/disk/sqlite_vfs.h"

namespace pesc::sim {
namespace {

namespace co = coordinator;

constexpr uint32_t kBatches = 12;
constexpr uint32_t kLeases = 5;  // in each

std::vector<co::Record> batch(uint32_t number) {
  const JobId job{number};
  auto spec = std::make_shared<JobSpec>();
  spec->program = "./program";
  spec->arguments = {std::string(number * 300, 'x')};
  spec->repetitions = kLeases;
  std::vector<co::Record> records = {co::JobAdded{job, "user", spec, 1}};
  for (uint32_t i = 0; i < kLeases; ++i) records.push_back(co::AttemptLeased{{job, i, 1}, {7}});
  return records;
}

// How many of the batches are there in whole; -1: one is there in part, or they are not the first.
int whole_batches(co::Journal& journal) {
  std::map<JobId, uint32_t> leases;
  const absl::Status status = journal.replay([&](const co::Record& record) {
    if (const auto* added = std::get_if<co::JobAdded>(&record)) leases[added->id] += 0;
    if (const auto* leased = std::get_if<co::AttemptLeased>(&record)) ++leases[leased->key.job];
  });
  if (!status.ok()) return -1;
  uint64_t expected = 0;
  for (const auto& [job, count] : leases) {
    if (job.value != ++expected || count != kLeases) return -1;
  }
  return static_cast<int>(expected);
}

struct Crash {
  std::string wrong;
  bool before_the_end = true;
};

Crash crash_at(uint64_t at, bool power) {
  Random random(at + 1);
  SimDisk disk;
  SqliteVfs vfs(disk);
  const co::JournalOptions options{.path = "/sim/journal.db", .vfs = vfs.name()};
  int committed = 0;
  disk.die_after(at, random);
  if (auto journal = co::Journal::open(options); journal.ok()) {
    (void)(*journal)->replay([](const co::Record&) {});
    while (committed < int(kBatches) && (*journal)->commit(batch(committed + 1)).ok()) ++committed;
  }
  const bool died = disk.dead();
  power ? disk.power_failed(random) : disk.process_killed();
  auto journal = co::Journal::open(options);
  if (!journal.ok()) return {journal.status().ToString(), died};
  const int found = whole_batches(**journal);
  if (found < committed) return {"lost a batch that was committed", died};
  if (found > committed + 1) return {"has a batch that was never written", died};
  if (found < int(kBatches) && !(*journal)->commit(batch(found + 1)).ok()) {
    return {"cannot be written any more", died};
  }
  return {{}, died};
}

TEST(JournalOnSimDisk, APowerFailureAtAnyWriteLosesNothing) {
  uint64_t at = 0;
  for (bool more = true; more; ++at) {
    const Crash crash = crash_at(at, true);
    ASSERT_EQ(crash.wrong, "") << "at " << at;
    more = crash.before_the_end;
  }
  EXPECT_GT(at, 100u);
}

TEST(JournalOnSimDisk, AKillAtAnyWriteLosesNothing) {
  bool more = true;
  for (uint64_t at = 0; more; ++at) {
    const Crash crash = crash_at(at, false);
    ASSERT_EQ(crash.wrong, "") << "at " << at;
    more = crash.before_the_end;
  }
}

// A restart reads what a killed process wrote and did not live to sync. That is shown to users and
// workers from then on, without another write: it must survive a power failure too.
TEST(JournalOnSimDisk, WhatARestartHasReadSurvivesAPowerFailure) {
  for (uint64_t at = 0; at < 60; ++at) {
    Random random(at + 1);
    SimDisk disk;
    SqliteVfs vfs(disk);
    const co::JournalOptions options{.path = "/sim/journal.db", .vfs = vfs.name()};
    {
      auto journal = co::Journal::open(options);
      ASSERT_TRUE(journal.ok());
      ASSERT_EQ(whole_batches(**journal), 0);
      disk.die_after(at, random);
      for (uint32_t i = 1; i <= 4; ++i) (void)(*journal)->commit(batch(i));
      disk.die();
    }
    disk.process_killed();
    int seen = 0;
    {
      auto journal = co::Journal::open(options);
      ASSERT_TRUE(journal.ok());
      seen = whole_batches(**journal);
      disk.die();  // as kill -9: what closing would sync is not
    }
    disk.power_failed(random);
    auto journal = co::Journal::open(options);
    ASSERT_TRUE(journal.ok());
    ASSERT_EQ(whole_batches(**journal), seen) << "at " << at;
  }
}

TEST(JournalOnSimDisk, AFullDiskRefusesTheBatchAndTakesItWhenThereIsRoom) {
  SimDisk disk;
  SqliteVfs vfs(disk);
  auto journal = co::Journal::open({.path = "/sim/journal.db", .vfs = vfs.name()});
  ASSERT_TRUE(journal.ok());
  ASSERT_EQ(whole_batches(**journal), 0);
  ASSERT_TRUE((*journal)->commit(batch(1)).ok());
  disk.set_room(disk.bytes());
  uint32_t next = 2;  // some fit where others were
  absl::Status status;
  while (next < 40 && (status = (*journal)->commit(batch(next))).ok()) ++next;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE((*journal)->reopen().ok());
  disk.set_room(0);
  ASSERT_TRUE((*journal)->reopen().ok());
  EXPECT_EQ(whole_batches(**journal), int(next) - 1);
  EXPECT_TRUE((*journal)->commit(batch(next)).ok());
  EXPECT_EQ(whole_batches(**journal), int(next));
}

}  // namespace
}  // namespace pesc::sim
