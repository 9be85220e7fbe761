// Ports for gangs: master_port of a rank 0 on this machine.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "model/ids.h"

namespace pesc::worker {

struct PortRange {
  uint16_t first = 0, last = 0;  // both are in it
};
// Where the kernel gives out no ports by itself, from what ip_local_port_range says
// ("32768\t60999").
PortRange gang_ports(std::string_view ephemeral);
PortRange gang_ports();

// Whether a program could listen there now.
bool port_is_free(uint16_t port);

// On the loop's thread.
class PortChooser {
 public:
  explicit PortChooser(PortRange range) : range_(range) {}
  // Another for each generation of a gang, none that another gang here has. 0: none is free.
  uint16_t choose(const AttemptKey& key);
  void release(const AttemptKey& key);

 private:
  const PortRange range_;
  std::map<AttemptKey, uint16_t> given_;
  std::map<JobId, uint16_t> last_;
};

}  // namespace pesc::worker
