// What is made of a driver's readings.
#include <unistd.h>

#include "runtime/worker/gpu/gpu_usage.h"
#include "support.h"

namespace pesc::worker {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const std::string kOne = "GPU-one", kTwo = "GPU-two";

// Attempt 1 is below 100, attempt 2 below 200; 300 is somebody else's.
class Table : public ::testing::Test {
 protected:
  Table() {
    processes_.parents = {{100, 50},  {101, 100}, {102, 101}, {200, 50},
                          {201, 200}, {50, 1},    {300, 1},   {1, 0}};
  }
  const GpuState& update(std::vector<GpuReading> gpus) {
    snapshot_ = table_.update(driver_reading(std::move(gpus)), attempts_, processes_.parent_of());
    usage_.sample(snapshot_);
    static const GpuState nothing;
    return snapshot_.gpus.empty() ? nothing : snapshot_.gpus[0];
  }
  const GpuState& update(uint64_t used_mib, std::vector<ProcessReading> processes) {
    return update({gpu_reading(kOne, 12 * kGiB, used_mib * kMiB, std::move(processes))});
  }
  void begin(uint32_t rank, std::vector<std::string> gpus = {kOne}) {
    attempts_.push_back({attempt_key(rank), rank * 100, std::move(gpus)});
    usage_.begin(attempt_key(rank));
  }
  uint64_t end(uint32_t rank) {
    std::erase_if(attempts_, [&](const auto& a) { return a.key == attempt_key(rank); });
    return usage_.end(attempt_key(rank));
  }

  Processes processes_;
  GpuTable table_{{}};
  GpuUsage usage_;
  std::vector<AttemptOnGpus> attempts_;
  GpuSnapshot snapshot_;
};

TEST_F(Table, DescribesAHealthyGpu) {
  GpuReading reading = gpu_reading(kOne);
  reading.temperature_c = 60;
  const GpuState& state = update({reading});
  EXPECT_EQ(state.gpu, (Gpu{kOne, "NVIDIA RTX 3060", "535.129.03", 806, 12 * kGiB, 0, true, ""}));
  EXPECT_EQ(state.temperature_c, 60u);
  // A quick reading keeps what only full ones have.
  EXPECT_EQ(update(0, {}).temperature_c, 60u);
}

TEST_F(Table, MemoryIsWhoseProcessesItIs) {
  begin(1);
  begin(2);
  const GpuState& state =
      update(1000, {{100, 100 * kMiB}, {102, 300 * kMiB}, {201, 200 * kMiB}, {300, 400 * kMiB}});
  EXPECT_EQ(state.attempt_bytes.at(attempt_key(1)), 400 * kMiB);
  EXPECT_EQ(state.attempt_bytes.at(attempt_key(2)), 200 * kMiB);
  EXPECT_EQ(state.gpu.taken_bytes, 400 * kMiB);
  EXPECT_EQ(state.gpu.ranks_bytes, 600 * kMiB);
  EXPECT_TRUE(state.gpu.reports_memory);
  EXPECT_EQ(state.processes[1], (GpuProcess{102, 300 * kMiB, attempt_key(1)}));
  EXPECT_EQ(state.processes[3], (GpuProcess{300, 400 * kMiB, std::nullopt}));
}

TEST_F(Table, PeaksOutliveTheMomentAndAreOfOneGpu) {
  begin(1, {kOne, kTwo});
  update({gpu_reading(kOne, 4 * kGiB, 900 * kMiB, {{101, 900 * kMiB}}),
          gpu_reading(kTwo, 4 * kGiB, 500 * kMiB, {{101, 500 * kMiB}})});
  update({gpu_reading(kOne, 4 * kGiB, 100 * kMiB, {{101, 100 * kMiB}}),
          gpu_reading(kTwo, 4 * kGiB, 600 * kMiB, {{101, 600 * kMiB}})});
  const GpuUse* use = usage_.find(attempt_key(1));
  ASSERT_NE(use, nullptr);
  EXPECT_EQ(use->now_bytes,
            (std::map<std::string, uint64_t>{{kOne, 100 * kMiB}, {kTwo, 600 * kMiB}}));
  EXPECT_EQ(end(1), 900 * kMiB);
  EXPECT_EQ(end(1), 0u) << "it is forgotten";
}

TEST_F(Table, ParentLoopsAndInitEndTheSearch) {
  const std::vector<AttemptOnGpus> attempts = {{attempt_key(1), 100, {}}, {attempt_key(2), 0, {}}};
  Processes loop;
  loop.parents = {{7, 8}, {8, 7}, {9, 9}};
  EXPECT_EQ(attempt_of(7, attempts, loop.parent_of()), std::nullopt);
  EXPECT_EQ(attempt_of(9, attempts, loop.parent_of()), std::nullopt);
  EXPECT_EQ(attempt_of(300, attempts, processes_.parent_of()), std::nullopt);
  EXPECT_EQ(attempt_of(0, attempts, processes_.parent_of()), std::nullopt)
      << "an attempt whose process is not known has none";
  EXPECT_EQ(attempt_of(102, attempts, processes_.parent_of()), attempt_key(1));
}

TEST_F(Table, UnexplainedMemoryIsTakenAboveAMargin) {
  EXPECT_EQ(update(60, {}).gpu.taken_bytes, 0u);
  EXPECT_EQ(update(500, {}).gpu.taken_bytes, 500 * kMiB);
  EXPECT_EQ(update(900, {{300, 400 * kMiB}}).gpu.taken_bytes, 900 * kMiB);
  EXPECT_EQ(update(0, {}).gpu.taken_bytes, 0u);
}

// Memory and processes are asked for one after the other.
TEST_F(Table, WhatChangesDuringAReadingIsNotTaken) {
  begin(1);
  GpuReading grew = gpu_reading(kOne, 12 * kGiB, 100 * kMiB, {{100, 100 * kMiB}});
  grew.memory_after->used_bytes = 1100 * kMiB;
  EXPECT_EQ(update({grew}).gpu.taken_bytes, 0u);
  GpuReading shrank = gpu_reading(kOne, 12 * kGiB, 1100 * kMiB, {{100, 100 * kMiB}});
  shrank.memory_after->used_bytes = 100 * kMiB;
  EXPECT_EQ(update({shrank}).gpu.taken_bytes, 0u);
}

TEST_F(Table, WhatAnEndedRankLeavesForAMomentIsNotTaken) {
  begin(1);
  update(1300, {{100, 1300 * kMiB}});
  end(1);
  EXPECT_EQ(update(1300, {}).gpu.taken_bytes, 0u) << "the driver has not freed it yet";
  EXPECT_EQ(update(700, {{100, 700 * kMiB}}).gpu.taken_bytes, 700 * kMiB)
      << "somebody's who is there, by now: the process lives";
  processes_.parents.erase(100);
  EXPECT_EQ(update(0, {}).gpu.taken_bytes, 0u);
  EXPECT_EQ(update(800, {}).gpu.taken_bytes, 800 * kMiB) << "long after, it is somebody's";
}

TEST_F(Table, AProcessThatHasJustEndedIsNobodys) {
  begin(1);
  update(1300, {{100, 1300 * kMiB}});
  end(1);
  processes_.parents.erase(100);
  EXPECT_EQ(update(1300, {{100, 1300 * kMiB}}).gpu.taken_bytes, 0u);
}

TEST_F(Table, OthersProcessesThatMayNotBeSeenAreTaken) {
  EXPECT_EQ(update(700, {{4711, 700 * kMiB}}).gpu.taken_bytes, 700 * kMiB);
  begin(1);
  EXPECT_EQ(update(800, {{4711, 700 * kMiB}, {100, 100 * kMiB}}).gpu.taken_bytes, 700 * kMiB);
}

TEST_F(Table, MemoryThatIsNotReportedMeansOneAtATime) {
  EXPECT_TRUE(update(0, {}).gpu.reports_memory) << "nothing has shown otherwise";
  begin(1);
  const GpuState& state = update(1328, {{100, std::nullopt}});
  EXPECT_FALSE(state.gpu.reports_memory);
  EXPECT_THAT(state.one_at_a_time, HasSubstr("memory of each process"));
  EXPECT_EQ(state.gpu.taken_bytes, 0u);
  // Alone, what is in use is its own: so its peak is learned here too.
  EXPECT_EQ(state.attempt_bytes.at(attempt_key(1)), 1328 * kMiB);
  EXPECT_FALSE(update(0, {}).gpu.reports_memory) << "an empty list shows nothing";
  EXPECT_TRUE(update(100, {{100, 100 * kMiB}}).gpu.reports_memory);
  EXPECT_EQ(end(1), 1328 * kMiB);
}

TEST_F(Table, ADriverWithoutAListMeansOneAtATime) {
  GpuReading reading = gpu_reading(kOne, 2 * kGiB, 200 * kMiB);
  reading.processes.reset();
  const GpuState& idle = update({reading});
  EXPECT_FALSE(idle.gpu.reports_memory);
  EXPECT_EQ(idle.gpu.taken_bytes, 200 * kMiB);
  begin(1);
  reading.memory = reading.memory_after = MemoryReading{2 * kGiB, 1528 * kMiB};
  const GpuState& busy = update({reading});
  EXPECT_EQ(busy.gpu.taken_bytes, 200 * kMiB) << "as it was before the rank came";
  EXPECT_EQ(busy.attempt_bytes.at(attempt_key(1)), 1328 * kMiB);
  // Two there (which nobody should do) cannot be told apart.
  begin(2);
  EXPECT_THAT(update({reading}).attempt_bytes, IsEmpty());
}

TEST_F(Table, SomebodysUnknownMemoryIsNotTheRanks) {
  begin(1);
  EXPECT_THAT(
      update(1328, {{100, std::nullopt}, {300, std::nullopt}}).attempt_bytes.at(attempt_key(1)),
      0u);
}

TEST_F(Table, MoreThanThereIsIsNotKnown) {
  begin(1);
  const GpuState& state = update(100, {{100, 1ull << 60}});
  EXPECT_FALSE(state.gpu.reports_memory);
  EXPECT_LE(state.attempt_bytes.at(attempt_key(1)), 12 * kGiB);
}

TEST_F(Table, RanksThatAreNeverListedMeanOneAtATime) {
  update(300, {});
  begin(1);
  update(300, {});
  EXPECT_EQ(update(1600, {}).gpu.reports_memory, true) << "once may be chance";
  const GpuState& state = update(1600, {});
  EXPECT_FALSE(state.gpu.reports_memory);
  EXPECT_THAT(state.one_at_a_time, HasSubstr("container"));
  EXPECT_EQ(state.gpu.taken_bytes, 300 * kMiB);
  EXPECT_EQ(state.attempt_bytes.at(attempt_key(1)), 1300 * kMiB);
  EXPECT_TRUE(update(1600, {{100, 1300 * kMiB}}).gpu.reports_memory);
}

// In a container, a process that is not there may be ours under another number.
TEST_F(Table, NumbersOfAnotherNamespaceAreNobodys) {
  GpuTable inside({{}, false});
  begin(1);
  const auto parent_of = processes_.parent_of();
  inside.update(driver_reading({gpu_reading(kOne)}), {}, parent_of);
  for (int i = 0; i < 3; ++i) {
    snapshot_ = inside.update(
        driver_reading({gpu_reading(kOne, 12 * kGiB, 1300 * kMiB, {{90100, 1300 * kMiB}})}),
        attempts_, parent_of);
  }
  EXPECT_EQ(snapshot_.gpus[0].gpu.taken_bytes, 0u);
  EXPECT_FALSE(snapshot_.gpus[0].gpu.reports_memory);
  EXPECT_EQ(snapshot_.gpus[0].attempt_bytes.at(attempt_key(1)), 1300 * kMiB);
}

TEST_F(Table, ComputeModes) {
  GpuReading reading = gpu_reading(kOne);
  reading.sharing = GpuSharing::one_process;
  EXPECT_FALSE(update({reading}).gpu.reports_memory);
  reading.sharing = GpuSharing::prohibited;
  EXPECT_THAT(update({reading}).gpu.trouble, HasSubstr("compute mode"));
  reading.sharing = GpuSharing::shared;
  EXPECT_THAT(update({reading}).gpu.trouble, IsEmpty());
}

TEST_F(Table, NonsenseIsTrouble) {
  const std::vector<std::pair<MemoryReading, std::string>> cases = {
      {{0, 0}, "no memory"},
      {{2 * kGiB, 3 * kGiB}, "3 GiB of its 2 GiB"},
      {{1ull << 60, 0}, "of memory"},
  };
  for (const auto& [memory, text] : cases) {
    update(100, {});
    GpuReading reading = gpu_reading(kOne);
    reading.memory = reading.memory_after = memory;
    const GpuState& state = update({reading});
    EXPECT_THAT(state.gpu.trouble, HasSubstr(text));
    EXPECT_EQ(state.gpu.memory_bytes, 12 * kGiB) << "the last that made sense";
  }
  GpuReading reading = gpu_reading(kOne);
  reading.memory.reset();
  EXPECT_THAT(update({reading}).gpu.trouble, HasSubstr("memory"));
  EXPECT_THAT(update(0, {}).gpu.trouble, IsEmpty());
}

TEST_F(Table, NonsensicalCapabilities) {
  for (const auto& [major, minor] : std::vector<std::pair<int, int>>{{0, 0}, {-1, 3}, {8, 4000}}) {
    GpuTable table{{}};
    GpuReading reading = gpu_reading(kOne);
    reading.major = major;
    reading.minor = minor;
    const GpuSnapshot snapshot =
        table.update(driver_reading({reading}), {}, processes_.parent_of());
    EXPECT_THAT(snapshot.gpus.at(0).gpu.trouble, HasSubstr("compute capability"));
  }
  GpuReading reading = gpu_reading(kOne);
  reading.major = 10;
  reading.minor = 0;
  EXPECT_EQ(update({reading}).gpu.compute_capability, 1000u);
}

TEST_F(Table, NamesAreFitForATerminal) {
  GpuReading reading = gpu_reading(kOne);
  reading.name = "RTX\x1b[31m\n\xff" + std::string(500, 'x');
  const std::string name = update({reading}).gpu.name;
  EXPECT_EQ(name.find('\x1b'), name.npos);
  EXPECT_EQ(name.find('\n'), name.npos);
  EXPECT_LE(name.size(), 200u);
  reading.name = "";
  reading.uuid = kTwo;
  update({reading});
  EXPECT_EQ(snapshot_.find(kTwo)->gpu.name, "GPU");
}

TEST_F(Table, OnlyUuidsAreGpus) {
  EXPECT_TRUE(is_gpu_uuid("GPU-8b5e2c1a-0f7d-4a6e-9c3b-1d2e3f4a5b6c"));
  EXPECT_TRUE(is_gpu_uuid("MIG-GPU-8b5e2c1a-0f7d-4a6e-9c3b-1d2e3f4a5b6c/7/0"));
  for (const std::string& text :
       {std::string(), std::string("GPU-"), std::string("GPU-a,b"), std::string("GPU-a b"),
        std::string("0"), std::string("GPU-\n"), "GPU-" + std::string(200, 'a')}) {
    EXPECT_FALSE(is_gpu_uuid(text)) << text;
  }
  update({gpu_reading("GPU-a,GPU-b"), gpu_reading(""), gpu_reading(kOne), gpu_reading(kOne)});
  EXPECT_THAT(snapshot_.gpus, SizeIs(1));
  ASSERT_THAT(snapshot_.notes, SizeIs(3));
  EXPECT_THAT(snapshot_.notes[0], HasSubstr("'GPU-a,GPU-b'"));
  EXPECT_THAT(snapshot_.notes[1], HasSubstr("no UUID"));
  EXPECT_THAT(snapshot_.notes[2], HasSubstr("twice"));
}

TEST_F(Table, ADriverThatMakesUpNamesIsCut) {
  for (int i = 0; i < 10; ++i) {
    std::vector<GpuReading> gpus;
    for (int k = 0; k < 64; ++k) gpus.push_back(gpu_reading("GPU-" + std::to_string(i * 64 + k)));
    update(std::move(gpus));
  }
  EXPECT_THAT(snapshot_.gpus, SizeIs(256));
  EXPECT_THAT(snapshot_.notes, SizeIs(64));
}

TEST_F(Table, LostGpusStayListedWithTheirTrouble) {
  update({gpu_reading(kOne), gpu_reading(kTwo)});
  GpuReading lost;
  lost.uuid = kOne;
  lost.failure = "it has fallen off the bus (GPU is lost)";
  update({lost, gpu_reading(kTwo)});
  EXPECT_THAT(snapshot_.find(kOne)->gpu.trouble, HasSubstr("off the bus"));
  EXPECT_EQ(snapshot_.find(kOne)->gpu.memory_bytes, 12 * kGiB);
  EXPECT_THAT(snapshot_.find(kTwo)->gpu.trouble, IsEmpty());
  update({gpu_reading(kTwo)});
  EXPECT_THAT(snapshot_.find(kOne)->gpu.trouble, HasSubstr("does not list it"));
  update({gpu_reading(kOne), gpu_reading(kTwo)});
  EXPECT_THAT(snapshot_.find(kOne)->gpu.trouble, IsEmpty());
}

TEST_F(Table, MigDevicesComeAndGo) {
  update({gpu_reading(kOne), gpu_reading(kTwo)});
  GpuReading part = gpu_reading("MIG-a", 5 * kGiB);
  part.mig = true;
  DriverReading cut = driver_reading({part, gpu_reading(kTwo)});
  cut.cut_up = {kOne};
  snapshot_ = table_.update(cut, {}, processes_.parent_of());
  EXPECT_EQ(snapshot_.find(kOne), nullptr) << "its parts are there in its place";
  EXPECT_EQ(snapshot_.find("MIG-a")->gpu.memory_bytes, 5 * kGiB);
  update({gpu_reading(kOne), gpu_reading(kTwo)});
  EXPECT_EQ(snapshot_.find("MIG-a"), nullptr);
  EXPECT_THAT(snapshot_.gpus, SizeIs(2));
}

TEST_F(Table, XidsOfTheHardwareAreTrouble) {
  GpuReading reading = gpu_reading(kOne);
  reading.xids = {13, 31, 13};
  const GpuState& state = update({reading});
  EXPECT_THAT(state.gpu.trouble, IsEmpty()) << "any program with a bug can cause these";
  EXPECT_EQ(state.xids, (std::map<uint64_t, uint64_t>{{13, 2}, {31, 1}}));
  reading.xids = {79};
  EXPECT_THAT(update({reading}).gpu.trouble, HasSubstr("Xid 79"));
  EXPECT_THAT(update(0, {}).gpu.trouble, HasSubstr("Xid 79")) << "until the driver is loaded anew";
  table_.lost(absl::DeadlineExceededError("it hangs"));
  EXPECT_THAT(update(0, {}).gpu.trouble, HasSubstr("Xid 79")) << "one that hung is the same one";
  table_.lost(absl::UnavailableError("the driver went away"));
  EXPECT_THAT(update(0, {}).gpu.trouble, IsEmpty());
}

TEST_F(Table, NewMemoryErrorsAreTroubleOldOnesAreNot) {
  GpuReading reading = gpu_reading(kOne);
  reading.ecc_uncorrected = 4;
  EXPECT_THAT(update({reading}).gpu.trouble, IsEmpty());
  reading.ecc_uncorrected = 6;
  EXPECT_THAT(update({reading}).gpu.trouble, HasSubstr("2 uncorrectable memory errors"));
  EXPECT_THAT(update(0, {}).gpu.trouble, HasSubstr("2 uncorrectable memory errors"));
}

TEST_F(Table, WithoutTheDriverNoneIsUsable) {
  EXPECT_THAT(table_.lost(absl::NotFoundError("no driver")).gpus, IsEmpty());
  begin(1);
  update(100, {{100, 100 * kMiB}});
  const GpuSnapshot lost = table_.lost(absl::UnavailableError("the driver went away\nx"));
  EXPECT_EQ(lost.trouble, "the driver went away");
  ASSERT_THAT(lost.gpus, SizeIs(1));
  EXPECT_EQ(lost.gpus[0].gpu.trouble, "the driver went away");
  EXPECT_THAT(lost.gpus[0].attempt_bytes, IsEmpty());
  EXPECT_THAT(update(100, {{100, 100 * kMiB}}).gpu.trouble, IsEmpty());
}

TEST_F(Table, OnlyTheGpusOfTheConfigurationAreOffered) {
  GpuTable table{{{kTwo, "GPU-gone"}}};
  const GpuSnapshot snapshot = table.update(driver_reading({gpu_reading(kOne), gpu_reading(kTwo)}),
                                            {}, processes_.parent_of());
  ASSERT_THAT(snapshot.gpus, SizeIs(1));
  EXPECT_EQ(snapshot.gpus[0].gpu.uuid, kTwo);
  ASSERT_THAT(snapshot.notes, SizeIs(1));
  EXPECT_THAT(snapshot.notes[0], HasSubstr("'GPU-gone', which this machine does not have"));
}

TEST(ProcessTree, FollowsProc) {
  EXPECT_EQ(parent_of(static_cast<uint32_t>(::getpid())), static_cast<uint32_t>(::getppid()));
  EXPECT_EQ(parent_of(0x7ffffff0), std::nullopt);
}

}  // namespace
}  // namespace pesc::worker
