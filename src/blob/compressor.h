// zstd over a sink, with what a thread needs for it kept from one use to the next: setting a
// compressor up costs more than packing a small output.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "blob/pack.h"

struct ZSTD_CCtx_s;

namespace pesc::blob {

class Compressor {
 public:
  explicit Compressor(const ByteSink& sink);
  ~Compressor();
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  absl::Status append(std::string_view bytes);
  absl::Status finish();

 private:
  absl::Status stream(std::string_view bytes, bool end);

  const ByteSink& sink_;
  ZSTD_CCtx_s* context_;
  std::string start_;  // held back until it is known whether all of it fits one call
  std::string out_;
  bool streaming_ = false;
};

}  // namespace pesc::blob
