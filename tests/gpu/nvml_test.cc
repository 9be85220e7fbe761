// The probe against a driver's library that the test describes.
#include <fcntl.h>
#include <sys/stat.h>

#include <future>
#include <thread>

#include "support.h"

namespace pesc::worker {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

DriverReading read(NvmlProbe& probe, bool full = true) {
  absl::StatusOr<DriverReading> reading = probe.read(full);
  EXPECT_TRUE(reading.ok()) << reading.status();
  return reading.ok() ? *std::move(reading) : DriverReading{};
}

TEST(Nvml, ReadsWhatTheDriverSays) {
  FakeDriver driver(
      "driver 550.54.14\n"
      "gpu GPU-aa memory=12G reserved=256M used=100M capability=8.6 name=NVIDIA_RTX_3060 "
      "temperature=51 utilization=7 ecc=3\n"
      "process GPU-aa pid=77 bytes=1328M\n"
      "process GPU-aa pid=78 bytes=20M graphics\n"
      "gpu GPU-bb memory=2G capability=3.0\n");
  NvmlProbe probe(FAKE_NVML);
  const DriverReading reading = read(probe);
  EXPECT_EQ(reading.driver, "550.54.14");
  ASSERT_THAT(reading.gpus, SizeIs(2));
  const GpuReading& gpu = reading.gpus[0];
  EXPECT_EQ(gpu.uuid, "GPU-aa");
  EXPECT_EQ(gpu.name, "NVIDIA RTX 3060");
  EXPECT_EQ(gpu.major, 8);
  EXPECT_EQ(gpu.minor, 6);
  // What the driver keeps for itself is neither offered nor in use.
  EXPECT_EQ(gpu.memory->total_bytes, 12 * kGiB - 256 * kMiB);
  EXPECT_EQ(gpu.memory->used_bytes, (100 + 1328 + 20) * kMiB);
  EXPECT_EQ(*gpu.processes, (std::vector<ProcessReading>{{77, 1328 * kMiB}, {78, 20 * kMiB}}));
  EXPECT_EQ(gpu.temperature_c, 51u);
  EXPECT_EQ(gpu.utilization_percent, 7u);
  EXPECT_EQ(gpu.ecc_uncorrected, 3u);
  EXPECT_THAT(gpu.failure, IsEmpty());
  EXPECT_EQ(reading.gpus[1].major, 3);
  EXPECT_THAT(*reading.gpus[1].processes, IsEmpty());
}

TEST(Nvml, QuickReadingsLeaveHealthOut) {
  FakeDriver driver("gpu GPU-aa memory=1G temperature=51\n");
  NvmlProbe probe(FAKE_NVML);
  EXPECT_TRUE(read(probe, false).gpus.at(0).temperature_c) << "the first one is always full";
  const DriverReading quick = read(probe, false);
  EXPECT_FALSE(quick.gpus.at(0).temperature_c);
  EXPECT_TRUE(quick.gpus.at(0).memory);
}

TEST(Nvml, WithoutALibraryThereIsNoDriver) {
  NvmlProbe probe("/nonexistent/libnvidia-ml.so.1");
  const absl::Status status = probe.read(true).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/libnvidia-ml.so.1"));
}

TEST(Nvml, AnotherLibraryIsNotTakenForIt) {
  NvmlProbe probe("libc.so.6");
  const absl::Status status = probe.read(true).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("nvmlInit_v2"));
}

TEST(Nvml, OldDriversAreReadWithWhatTheyHave) {
  FakeDriver driver(
      "driver 390.157\n"
      "gpu GPU-aa memory=2G used=50M capability=3.0\n"
      "process GPU-aa pid=77 bytes=300M\n"
      "xid GPU-aa 79\n");
  NvmlProbe probe(FAKE_NVML_OLD);
  const DriverReading reading = read(probe);
  ASSERT_THAT(reading.gpus, SizeIs(1));
  EXPECT_EQ(reading.gpus[0].memory->total_bytes, 2 * kGiB);
  EXPECT_EQ(reading.gpus[0].memory->used_bytes, 350 * kMiB);
  EXPECT_EQ(*reading.gpus[0].processes, (std::vector<ProcessReading>{{77, 300 * kMiB}}));
  EXPECT_THAT(reading.gpus[0].xids, IsEmpty());
  EXPECT_THAT(reading.gpus[0].failure, IsEmpty());
}

TEST(Nvml, EntriesOfBothLengthsAreRead) {
  std::string script = "gpu GPU-aa memory=12G\n";
  std::vector<ProcessReading> expected;
  for (uint32_t i = 0; i < 100; ++i) {  // more than a first guess has room for
    script += "process GPU-aa pid=" + std::to_string(1000 + i) + " bytes=" + std::to_string(i + 1) +
              "M\n";
    expected.push_back({1000 + i, (i + 1) * kMiB});
  }
  FakeDriver driver(script);
  NvmlProbe probe(FAKE_NVML);
  EXPECT_EQ(*read(probe).gpus.at(0).processes, expected);
  driver.say(script + "entry_bytes 32\n");
  EXPECT_EQ(*read(probe).gpus.at(0).processes, expected);
}

TEST(Nvml, EntryLengthIsSeenInTheBuffer) {
  std::vector<unsigned char> buffer(4 * 32, 0xa5);
  EXPECT_EQ(process_entry_bytes(buffer, 0, 0xa5), 24u);
  std::fill(buffer.begin(), buffer.begin() + 2 * 24, 0);
  EXPECT_EQ(process_entry_bytes(buffer, 2, 0xa5), 24u);
  std::fill(buffer.begin(), buffer.begin() + 2 * 32, 0);
  EXPECT_EQ(process_entry_bytes(buffer, 2, 0xa5), 32u);
}

TEST(Nvml, AProcessInBothListsCountsOnce) {
  FakeDriver driver(
      "gpu GPU-aa memory=12G\nprocess GPU-aa pid=7 bytes=100M\n"
      "process GPU-aa pid=7 bytes=120M graphics\n");
  NvmlProbe probe(FAKE_NVML);
  EXPECT_EQ(*read(probe).gpus.at(0).processes, (std::vector<ProcessReading>{{7, 120 * kMiB}}));
}

TEST(Nvml, DriversThatDoNotTellProcesses) {
  FakeDriver driver(
      "gpu GPU-no memory=2G reports=no\nprocess GPU-no pid=7 bytes=100M\n"
      "gpu GPU-un memory=2G reports=unsupported\nprocess GPU-un pid=8 bytes=100M\n"
      "gpu GPU-hi memory=2G reports=hidden\nprocess GPU-hi pid=9 bytes=100M\n");
  NvmlProbe probe(FAKE_NVML);
  const DriverReading reading = read(probe);
  EXPECT_EQ(*reading.gpus[0].processes, (std::vector<ProcessReading>{{7, std::nullopt}}));
  EXPECT_FALSE(reading.gpus[1].processes);
  EXPECT_THAT(*reading.gpus[2].processes, IsEmpty());
  for (const GpuReading& gpu : reading.gpus) EXPECT_EQ(gpu.memory->used_bytes, 100 * kMiB);
}

TEST(Nvml, OneThatFellOffTheBusLeavesTheOthersAlone) {
  const std::string two = "gpu GPU-aa memory=2G name=First\ngpu GPU-bb memory=2G\n";
  FakeDriver driver(two);
  NvmlProbe probe(FAKE_NVML);
  read(probe);
  driver.say("gpu GPU-aa memory=2G lost\ngpu GPU-bb memory=2G\n");
  const DriverReading reading = read(probe, false);
  ASSERT_THAT(reading.gpus, SizeIs(2));
  EXPECT_EQ(reading.gpus[0].uuid, "GPU-aa") << "it is known who it was";
  EXPECT_THAT(reading.gpus[0].failure, HasSubstr("fallen off the bus"));
  EXPECT_THAT(reading.gpus[1].failure, IsEmpty());
  driver.say(two);
  EXPECT_THAT(read(probe).gpus[0].failure, IsEmpty());
}

// After a reload, the driver may refuse the handle itself.
TEST(Nvml, OneThatHasNoHandleIsKnownByItsPlace) {
  FakeDriver driver("gpu GPU-aa memory=2G name=First\n");
  NvmlProbe probe(FAKE_NVML);
  read(probe);
  driver.say("down 9\n");
  EXPECT_FALSE(probe.read(true).ok());
  driver.say("gpu GPU-aa memory=2G lost\n");
  const DriverReading reading = read(probe);
  ASSERT_THAT(reading.gpus, SizeIs(1));
  EXPECT_EQ(reading.gpus[0].uuid, "GPU-aa");
  EXPECT_EQ(reading.gpus[0].name, "First");
  EXPECT_THAT(reading.gpus[0].failure, HasSubstr("fallen off the bus"));
}

TEST(Nvml, CallsThatFailSayWhich) {
  const std::string gpus = "gpu GPU-aa memory=2G\ngpu GPU-bb memory=2G\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"fail nvmlDeviceGetMemoryInfo* 999 GPU-aa", "its memory"},
      {"fail nvmlDeviceGetCudaComputeCapability 999 GPU-aa", "its compute capability"},
      {"fail nvmlDeviceGetUUID 999 GPU-aa", "its UUID"},
      {"fail nvmlDeviceGetComputeRunningProcesses* 15 GPU-aa", "fallen off the bus"},
      {"fail nvmlDeviceGetMemoryInfo* 16 GPU-aa", "must be reset"},
  };
  for (const auto& [statement, what] : cases) {
    FakeDriver driver(gpus + statement + "\n");
    NvmlProbe probe(FAKE_NVML);
    const DriverReading reading = read(probe);
    ASSERT_THAT(reading.gpus, SizeIs(2)) << statement;
    EXPECT_THAT(reading.gpus[0].failure, HasSubstr(what)) << statement;
    EXPECT_THAT(reading.gpus[1].failure, IsEmpty()) << statement;
    driver.say(gpus);
    EXPECT_THAT(read(probe).gpus[0].failure, IsEmpty()) << "after " << statement;
  }
}

TEST(Nvml, WhatOnlyAddsMayFail) {
  FakeDriver driver(
      "gpu GPU-aa memory=2G\n"
      "fail nvmlDeviceGetTemperature 3\nfail nvmlDeviceGetUtilizationRates 3\n"
      "fail nvmlDeviceGetTotalEccErrors 3\nfail nvmlDeviceGetGraphicsRunningProcesses_v3 3\n"
      "fail nvmlEventSetCreate 3\nfail nvmlDeviceGetMigMode 3\nfail nvmlDeviceGetComputeMode 3\n"
      "fail nvmlDeviceGetName 3\nfail nvmlSystemGetDriverVersion 3\n"
      "fail nvmlDeviceGetMemoryInfo_v2 3\n");
  NvmlProbe probe(FAKE_NVML);
  const DriverReading reading = read(probe);
  ASSERT_THAT(reading.gpus, SizeIs(1));
  EXPECT_THAT(reading.gpus[0].failure, IsEmpty());
  EXPECT_EQ(reading.gpus[0].memory->total_bytes, 2 * kGiB);
  EXPECT_FALSE(reading.gpus[0].temperature_c);
}

TEST(Nvml, ADriverThatGoesIsOpenedAnewWhenItIsBack) {
  FakeDriver driver("gpu GPU-aa memory=2G\n");
  NvmlProbe probe(FAKE_NVML);
  read(probe);
  driver.say("down 18\n");
  absl::Status status = probe.read(false).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  status = probe.read(false).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("reboot the machine"));
  driver.say("driver 560.1\ngpu GPU-aa memory=2G\n");
  EXPECT_EQ(read(probe, false).driver, "560.1");
}

TEST(Nvml, ADriverThatIsNotLoadedSaysWhatToDo) {
  FakeDriver driver("down 9\n");
  NvmlProbe probe(FAKE_NVML);
  const absl::Status status = probe.read(true).status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("modprobe nvidia"));
}

TEST(Nvml, AbsurdCountsAreCut) {
  FakeDriver driver("gpu GPU-aa memory=2G\ncount 1000000\n");
  NvmlProbe probe(FAKE_NVML);
  const DriverReading reading = read(probe);
  EXPECT_THAT(reading.gpus, SizeIs(64));
  ASSERT_THAT(reading.notes, SizeIs(1));
  EXPECT_THAT(reading.notes[0], HasSubstr("1000000"));
}

TEST(Nvml, XidsAreToldOnce) {
  FakeDriver driver("gpu GPU-aa memory=2G\ngpu GPU-bb memory=2G\n");
  NvmlProbe probe(FAKE_NVML);
  read(probe);
  driver.say("gpu GPU-aa memory=2G\ngpu GPU-bb memory=2G\nxid GPU-bb 13\nxid GPU-bb 79\n");
  const DriverReading reading = read(probe, false);
  EXPECT_THAT(reading.gpus[0].xids, IsEmpty());
  EXPECT_EQ(reading.gpus[1].xids, (std::vector<uint64_t>{13, 79}));
  EXPECT_THAT(read(probe, false).gpus[1].xids, IsEmpty());
}

TEST(Nvml, MigDevicesStandForTheirGpu) {
  FakeDriver driver(
      "gpu GPU-whole memory=40G\ngpu GPU-other memory=12G\n"
      "mig MIG-one parent=GPU-whole memory=5G capability=8.0\n"
      "mig MIG-two parent=GPU-whole memory=10G capability=8.0\n"
      "process MIG-two pid=7 bytes=1G\n");
  NvmlProbe probe(FAKE_NVML);
  DriverReading reading = read(probe);
  ASSERT_THAT(reading.gpus, SizeIs(3));
  EXPECT_EQ(reading.gpus[0].uuid, "MIG-one");
  EXPECT_TRUE(reading.gpus[0].mig);
  EXPECT_EQ(reading.gpus[1].uuid, "MIG-two");
  EXPECT_EQ(reading.gpus[1].memory->total_bytes, 10 * kGiB);
  EXPECT_THAT(*reading.gpus[1].processes, SizeIs(1));
  EXPECT_EQ(reading.gpus[2].uuid, "GPU-other");
  EXPECT_EQ(reading.cut_up, (std::vector<std::string>{"GPU-whole"}));
  // An administrator joins it again.
  driver.say("gpu GPU-whole memory=40G\ngpu GPU-other memory=12G\n");
  reading = read(probe);
  ASSERT_THAT(reading.gpus, SizeIs(2));
  EXPECT_EQ(reading.gpus[0].uuid, "GPU-whole");
}

TEST(Nvml, MigModeWithoutDevicesIsSaid) {
  FakeDriver driver("gpu GPU-whole memory=40G mode=mig\n");
  NvmlProbe probe(FAKE_NVML);
  const DriverReading reading = read(probe);
  EXPECT_THAT(reading.gpus, IsEmpty());
  ASSERT_THAT(reading.notes, SizeIs(1));
  EXPECT_THAT(reading.notes[0], HasSubstr("GPU-whole is in MIG mode"));
}

TEST(Nvml, ComputeModesAreRead) {
  FakeDriver driver("gpu GPU-aa memory=2G mode=exclusive\ngpu GPU-bb memory=2G mode=prohibited\n");
  NvmlProbe probe(FAKE_NVML);
  const DriverReading reading = read(probe);
  EXPECT_EQ(reading.gpus[0].sharing, GpuSharing::one_process);
  EXPECT_EQ(reading.gpus[1].sharing, GpuSharing::prohibited);
}

}  // namespace
}  // namespace pesc::worker
