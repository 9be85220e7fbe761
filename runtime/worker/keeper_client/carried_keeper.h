// The keeper's program as it is carried inside the library.
#pragma once

#include <string_view>

namespace pesc::worker {

std::string_view carried_keeper();

}  // namespace pesc::worker
