// Which address others reach a listener at.
#pragma once

#include "rpc/connection.h"

namespace pesc::coordinator {

// Other machines: a wildcard becomes the address of the interface that leads out of this machine.
rpc::Address reachable_address(const rpc::Address& bound);
// This machine: a wildcard becomes the loopback address.
rpc::Address local_address(const rpc::Address& bound);

}  // namespace pesc::coordinator
