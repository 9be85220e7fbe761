// Through which of this machine's network interfaces another host is reached.
#pragma once

#include <string>

namespace pesc::worker {

// Its name ("eth0"), or nothing when that cannot be told: `address` is no numeric IPv4 or IPv6
// address, or there is no way to it. Sends nothing.
std::string network_interface_towards(const std::string& address);

}  // namespace pesc::worker
