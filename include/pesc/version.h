// The library's version.
#pragma once

namespace pesc {

/// "0.1.0": of the library that is linked, not of the headers that were compiled.
const char* version();

}  // namespace pesc
