#include "runtime/worker/shell/network_interface.h"

#include <gtest/gtest.h>

namespace pesc::worker {
namespace {

TEST(NetworkInterface, LoopbackIsReachedByItsOwn) {
  EXPECT_EQ(network_interface_towards("127.0.0.1"), "lo");
}

TEST(NetworkInterface, WhatIsNoNumericAddressIsNotLookedUp) {
  EXPECT_EQ(network_interface_towards("localhost"), "");
  EXPECT_EQ(network_interface_towards(""), "");
  EXPECT_EQ(network_interface_towards("10.0.0.1; rm -rf /"), "");
}

}  // namespace
}  // namespace pesc::worker
