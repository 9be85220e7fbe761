#include "pesc/version.h"

namespace pesc {

const char* version() { return PESC_VERSION; }

}  // namespace pesc
