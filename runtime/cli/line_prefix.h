// Several ranks' output as one text: each line with its rank before it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pesc::cli {

class LinePrefix {
 public:
  // What is to be printed for the next bytes of a rank: "[7] " before each of its lines. A line
  // that another rank's interrupts is ended, and goes on behind a prefix of its own. A return stays
  // what it is: on a terminal the next state of a progress bar goes over the one before, prefix
  // and all.
  std::string add(uint32_t rank, std::string_view bytes);
  // What comes next begins a line of its own.
  std::string end();

 private:
  uint32_t rank_ = 0;        // whose line was begun
  bool line_begins_ = true;  // none was
  bool returned_ = false;    // by a return: what comes next goes over it
};

}  // namespace pesc::cli
