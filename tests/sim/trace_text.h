// One line for each thing that a trace shows.
#pragma once

#include <string>

#include "runtime/coordinator/core/core.h"
#include "runtime/worker/core/core.h"

namespace pesc::sim {

std::string text_of(const coordinator::Event& event);
std::string text_of(const coordinator::Record& record);
std::string text_of(const coordinator::Action& action);
std::string text_of(const worker::Event& event);
std::string text_of(const worker::Action& action);

}  // namespace pesc::sim
