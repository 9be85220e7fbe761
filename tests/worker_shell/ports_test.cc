#include "runtime/worker/shell/ports.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <set>

#include "runtime/common/state_dir.h"
#include "tests/worker_shell/support.h"

namespace pesc::worker {
namespace {

class Listener {
 public:
  explicit Listener(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    listens_ = ::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
               ::listen(fd_.get(), 1) == 0;
  }
  bool listens() const { return listens_; }

 private:
  common::UniqueFd fd_;
  bool listens_ = false;
};

TEST(GangPorts, LieOutsideWhatTheKernelGivesOut) {
  const PortRange usual = gang_ports("32768\t60999\n");
  EXPECT_EQ(usual.first, 20'000);
  EXPECT_EQ(usual.last, 32'767);
  const PortRange above = gang_ports("10000\t60000\n");
  EXPECT_EQ(above.first, 60'001);
  EXPECT_EQ(above.last, 65'535);
  const PortRange below = gang_ports("10000\t65535\n");
  EXPECT_EQ(below.first, 1'024);
  EXPECT_EQ(below.last, 9'999);
  EXPECT_GT(gang_ports("nonsense").last, gang_ports("nonsense").first);
}

TEST(GangPorts, EachGenerationAndEachGangHasAnother) {
  PortChooser ports(gang_ports());
  std::set<uint16_t> given;
  for (uint32_t generation = 1; generation <= 20; ++generation) {
    const uint16_t port = ports.choose(key_of(0, generation));
    EXPECT_TRUE(given.insert(port).second) << port;
    EXPECT_TRUE(port_is_free(port));
  }
}

TEST(GangPorts, TheSameWorkerNeverGivesOneTwiceInARow) {
  // Two ports: without the memory of the last one the second choice could be the first again.
  for (uint16_t first = 21'000; first < 22'000; first += 2) {
    const auto second = static_cast<uint16_t>(first + 1);
    if (!port_is_free(first) || !port_is_free(second)) continue;
    PortChooser ports({first, second});
    const uint16_t one = ports.choose(key_of(0, 1));
    ports.release(key_of(0, 1));
    const uint16_t two = ports.choose(key_of(0, 2));
    EXPECT_NE(one, two);
    ports.release(key_of(0, 2));
    EXPECT_EQ(ports.choose(key_of(0, 3)), one);
    EXPECT_EQ(ports.choose(key_of(0, 4)), two);
    EXPECT_EQ(ports.choose(key_of(0, 5)), 0) << "both are in use";
    return;
  }
  FAIL() << "no two ports are free";
}

TEST(GangPorts, ATakenOneIsPassedOver) {
  PortChooser other(gang_ports()), ports(gang_ports());
  const uint16_t port = other.choose(key_of(0, 1));
  Listener listener(port);
  ASSERT_TRUE(listener.listens());
  EXPECT_FALSE(port_is_free(port));
  EXPECT_NE(ports.choose(key_of(0, 1)), port);
}

}  // namespace
}  // namespace pesc::worker
