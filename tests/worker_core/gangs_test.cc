// Held attempts: all of a gang are ready before one is started.
#include <gmock/gmock.h>

#include "tests/worker_core/machine.h"

namespace pesc::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class WorkerGangs : public ::testing::Test {
 protected:
  void hold(std::vector<uint32_t> ranks) {
    auto spec = std::make_shared<JobSpec>(*spec_of());
    spec->parallel = true;
    UpdateReceived update{.number = 1};
    uint32_t local = 0;
    for (uint32_t rank : ranks) {
      update.leases.push_back(
          {key_of(rank), spec, {}, true, local++, static_cast<uint32_t>(ranks.size())});
    }
    m(update);
  }
  std::vector<SendReport::Ready> ready() const {
    std::vector<SendReport::Ready> all;
    for (const SendReport& report : m.got<SendReport>()) {
      all.insert(all.end(), report.ready.begin(), report.ready.end());
    }
    return all;
  }
  void order(uint32_t rank) { m(UpdateReceived{2, {}, {}, {{key_of(rank), "10.0.0.1", 23'456}}}); }
  Machine m{{.cpus_milli = 2000}};
};

TEST_F(WorkerGangs, AreHeldWithTheirCpusUntilTheOrder) {
  m(Connected{5'000});
  hold({1});
  m(Prepared{key_of(1)});
  EXPECT_THAT(m.got<Start>(), IsEmpty());
  EXPECT_EQ(m.state(key_of(1)), AttemptState::held);
  EXPECT_EQ(m.core.cpus_used_milli(), 1000u);
  ASSERT_EQ(ready().size(), 1u) << "told at once";
  EXPECT_EQ(ready()[0].key, key_of(1));
  m.wait(5'000);
  EXPECT_EQ(ready().size(), 1u) << "and with every heartbeat";
  order(1);
  ASSERT_EQ(m.got<Start>().size(), 1u);
  EXPECT_EQ(m.got<Start>()[0].master_addr, "10.0.0.1");
  EXPECT_EQ(m.got<Start>()[0].master_port, 23'456);
  order(1);
  EXPECT_THAT(m.got<Start>(), IsEmpty()) << "once";
  m.wait(5'000);
  EXPECT_THAT(ready(), IsEmpty());
}

TEST_F(WorkerGangs, RankZeroIsReadyWithItsPort) {
  m(Connected{5'000});
  hold({0, 2});
  m(Prepared{key_of(0)});
  EXPECT_THAT(m.keys<ChoosePort>(), ElementsAre(key_of(0)));
  EXPECT_THAT(ready(), IsEmpty());
  m(PortChosen{key_of(0), 23'456});
  ASSERT_EQ(ready().size(), 1u);
  EXPECT_EQ(ready()[0].master_port, 23'456);
  m(Prepared{key_of(2)});
  EXPECT_EQ(ready().size(), 2u);
  order(2);
  ASSERT_EQ(m.got<Start>().size(), 1u);
  EXPECT_EQ(m.got<Start>()[0].local_rank, 1u);
  EXPECT_EQ(m.got<Start>()[0].local_world_size, 2u);
}

TEST_F(WorkerGangs, WithoutAPortThereIsNoStart) {
  m(Connected{5'000});
  hold({0});
  m(Prepared{key_of(0)});
  m(PortChosen{key_of(0), 0});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::port_taken);
  EXPECT_EQ(m.core.cpus_used_milli(), 0u);
}

TEST_F(WorkerGangs, AreSaidToBeReadyAgainInTheNextSession) {
  m(Connected{5'000});
  hold({1});
  m(Disconnected{});
  m(Prepared{key_of(1)});
  EXPECT_THAT(ready(), IsEmpty());
  m(Connected{5'000});
  EXPECT_EQ(ready().size(), 1u);
  m(Disconnected{});
  m(Connected{5'000});
  EXPECT_EQ(ready().size(), 1u);
}

TEST_F(WorkerGangs, GoBeforeLeasesThatCameAheadOfTheirTime) {
  m(Connected{60'000});
  m.run(key_of(50));
  m.run(key_of(51));
  m.lease({key_of(52)});
  m(Prepared{key_of(52)});
  hold({1});
  m(Prepared{key_of(1)});
  m(Exited{key_of(50), outcome_of()});
  EXPECT_EQ(m.state(key_of(1)), AttemptState::held);
  EXPECT_EQ(m.state(key_of(52)), AttemptState::ready);
}

TEST_F(WorkerGangs, AStopGivesTheCpusBack) {
  m(Connected{60'000});
  hold({1});
  m(Prepared{key_of(1)});
  m.stop(key_of(1), EndReason::revoked);
  EXPECT_EQ(m.core.cpus_used_milli(), 0u);
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::revoked);
  order(1);
  EXPECT_THAT(m.got<Start>(), IsEmpty());
}

// `why` names the rank that was killed, which is the cause, though the others' end came first.
TEST_F(WorkerGangs, OneThatWasKilledKeepsItsReasonWhenItIsRevoked) {
  uint32_t rank = 0;
  for (EndReason own : {EndReason::signal, EndReason::out_of_memory, EndReason::exit_code}) {
    for (bool packed : {false, true}) {
      const AttemptKey key = key_of(++rank);
      m(Connected{5'000});
      hold({rank});
      m(Prepared{key});
      order(rank);
      m(Started{key, 1});
      if (packed) m(Disconnected{});
      m(Exited{key, outcome_of(own)});
      if (packed) m(Packed{key, blob_of(100'000), {}});
      m.stop(key, EndReason::revoked);
      if (!packed) m(Packed{key, blob_of(100), {}});
      if (packed) m(Connected{5'000});
      ASSERT_EQ(m.reported().size(), 1u);
      EXPECT_EQ(m.reported()[0].outcome.reason,
                own == EndReason::exit_code ? EndReason::revoked : own);
      EXPECT_TRUE(m.reported()[0].outcome.output.empty());
      m(ReportFailed{{key}, "was never leased to anyone"});
      m.wait(5'000);
      ASSERT_EQ(m.reported().size(), 1u);
      EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::revoked) << "it is rid of it at last";
      m(Acknowledged{{key}});
    }
  }
}

TEST_F(WorkerGangs, ADrainGivesThemBack) {
  m(Connected{60'000});
  hold({1});
  m(Prepared{key_of(1)});
  m(DrainRequested{});
  ASSERT_EQ(m.reported().size(), 1u);
  EXPECT_EQ(m.reported()[0].outcome.reason, EndReason::vacated);
}

}  // namespace
}  // namespace pesc::worker
